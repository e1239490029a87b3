"""A working directory belongs to one configuration."""

import json
import os
import re
import shutil
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from sslhsic.runs import workdir


def _config(**changes):
  config = ml_collections.ConfigDict(
    {'seed': 0, 'loss': {'gamma': 3.0, 'views': (1, 2)}, 'runner': {'log_every': 10}}
  )
  config.update_from_flattened_dict(changes)
  return config


def test_directory_is_made_with_its_configuration(tmp_path):
  workdir.write_config(tmp_path / 'a' / 'b', _config())
  written = json.loads((tmp_path / 'a' / 'b' / 'config.json').read_text())
  assert written == {
    'seed': 0,
    'loss': {'gamma': 3.0, 'views': [1, 2]},
    'runner': {'log_every': 10},
  }


def test_same_configuration_is_taken_again(tmp_path):
  workdir.check(tmp_path, _config())
  workdir.write_config(tmp_path, _config())
  assert workdir.check(tmp_path, _config()) is None


def test_other_configuration_is_refused_with_the_differing_fields(tmp_path):
  workdir.write_config(tmp_path, _config())
  message = r'loss\.gamma: 3\.0 there, 1\.0 here; seed: 0 there, 5 here'
  with pytest.raises(ValueError, match=message):
    workdir.check(tmp_path, _config(**{'loss.gamma': 1.0, 'seed': 5}))


def test_how_a_run_is_watched_may_change(tmp_path):
  workdir.write_config(tmp_path, _config())
  other = _config(**{'runner.log_every': 50})
  workdir.check(tmp_path, other)
  with pytest.raises(ValueError, match='seed'):
    workdir.check(tmp_path, _config(**{'runner.log_every': 50, 'seed': 1}))


FREE = {
  'data.num_workers': 3,
  'data.max_bad_fraction': 0.5,
  'evaluation.batch_size': 7,
  'runner.log_every': 50,
}
FREE_TO_RESUME = {'evaluation.split': 'test', 'training.num_microbatches': 4}


def _run_config(**changes):
  config = ml_collections.ConfigDict(
    {
      'seed': 0,
      'init_from': 'runs/a',
      'data': {'source': 'folder:/a', 'num_workers': 0, 'max_bad_fraction': 0.001},
      'network': {'encoder_options': {'width': 2}},
      'training': {'batch_size': 8, 'num_microbatches': 1},
      'evaluation': {'batch_size': 4, 'split': 'train'},
      'runner': {'log_every': 10},
    }
  )
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.parametrize(('field', 'value'), [*FREE.items(), *FREE_TO_RESUME.items()])
def test_what_does_not_change_a_training_may_change_when_it_resumes(
  tmp_path, field, value
):
  workdir.write_config(tmp_path, _run_config())
  changed = _run_config(**{field: value})
  workdir.check(tmp_path, changed)
  if field in FREE:
    workdir.check_results(tmp_path, changed)
    return
  with pytest.raises(ValueError, match=field):
    workdir.check_results(tmp_path, changed)


def test_what_a_run_checks_itself_may_be_called_otherwise(tmp_path):
  workdir.write_config(tmp_path, _run_config())
  moved = _run_config(**{'data.source': 'folder:/b', 'init_from': 'runs/b'})
  workdir.check(tmp_path, moved, ('init_from', 'data.source'))
  with pytest.raises(ValueError, match=r'data\.source: folder:/a there'):
    workdir.check(tmp_path, moved, ('init_from',))


def test_field_of_a_newer_version_takes_its_default(tmp_path, caplog):
  workdir.write_config(tmp_path, _run_config())
  newer = _run_config()
  newer.training = newer.training.to_dict() | {'precision': 'float32'}
  workdir.claim(tmp_path, newer).close()
  assert caplog.text.count('config.training.precision = float32') == 1
  workdir.write_config(tmp_path, newer)
  with pytest.raises(ValueError, match='precision: float32 there, nothing here'):
    workdir.check(tmp_path, _run_config())


def test_option_that_was_not_set_is_no_new_field(tmp_path):
  workdir.write_config(tmp_path, _run_config())
  other = _run_config()
  other.network.encoder_options = {'width': 2, 'stem': 'cifar'}
  with pytest.raises(ValueError, match=r'encoder_options\.stem: nothing there, cifar'):
    workdir.check(tmp_path, other)


@pytest.mark.parametrize('content', ['', '{"seed": 0', '[]', '\udcff'])
def test_damaged_file_is_named_and_the_run_resumes(tmp_path, caplog, content):
  file = tmp_path / 'config.json'
  file.write_bytes(content.encode(errors='surrogateescape'))
  assert workdir.read_json(file) == {}
  assert f'{file} is damaged and not used' in caplog.text
  workdir.claim(tmp_path, _config()).close()


def test_directory_that_cannot_be_made_is_an_os_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='file'):
    workdir.write_config(tmp_path / 'file' / 'run', _config())


def test_results_say_what_they_were_measured_on(tmp_path):
  workdir.write_results(tmp_path, {'knn_top1': 0.5})
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['knn_top1'] == 0.5
  assert results['device'] == '8 × cpu'
  assert results['versions']['jax'].startswith('0.')
  assert results['peak_memory_bytes'] > 1e6
  assert {'git_commit', 'command'} <= results.keys()


def test_results_are_json_whatever_was_measured(tmp_path):
  measured = {
    'alpha_req': float('nan'),
    'scores': (np.float64('inf'), np.float32(0.5), np.arange(2)),
    'by_name': {'error': ValueError('none')},
  }
  workdir.write_results(tmp_path, measured)

  def refuse(constant):
    raise AssertionError(constant)

  text = (tmp_path / 'results.json').read_text()
  found = json.loads(text, parse_constant=refuse)
  assert found['alpha_req'] is None
  assert found['scores'] == [None, 0.5, [0, 1]]
  assert found['by_name'] == {'error': 'none'}


def test_results_of_another_configuration_are_not_done(tmp_path):
  """As where a finished run was taken up again with another evaluation."""
  workdir.write_config(tmp_path, _run_config())
  workdir.write_results(tmp_path, {'knn_top1': 0.5})
  assert workdir.read_results(tmp_path)['knn_top1'] == 0.5
  # What changes no result, or is known again by its values.
  workdir.write_config(tmp_path, _run_config(**{'data.num_workers': 7}))
  workdir.write_config(tmp_path, _run_config(init_from='moved'))
  assert workdir.read_results(tmp_path)
  workdir.write_config(tmp_path, _run_config(**{'evaluation.split': 'test'}))
  assert workdir.read_results(tmp_path) == {}
  workdir.write_results(tmp_path, {'knn_top1': 0.4, 'failed': {'report': 'none'}})
  assert workdir.read_results(tmp_path) == {}


def test_provenance_that_cannot_be_found_out_is_null(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))  # Without git.
  monkeypatch.setattr(workdir, '_PACKAGES', ('no-such-package',))
  workdir.write_results(tmp_path, {'knn_top1': np.float32(0.5)})
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['knn_top1'] == 0.5
  assert results['git_commit'] is results['versions']['no-such-package'] is None


@pytest.mark.skipif(not shutil.which('git'), reason='there is no git')
def test_commit_is_named_itself_where_there_are_tags(tmp_path, monkeypatch):
  file = tmp_path / 'module.py'
  file.touch()
  git = ('git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=b')
  for command in ('init -q', 'add .', 'commit -qm c', 'tag -am t v1'):
    subprocess.run([*git, *command.split()], check=True)
  monkeypatch.setattr(workdir, '__file__', str(file))
  commit = workdir._git_commit()
  assert re.fullmatch('[0-9a-f]{40}', commit)
  file.write_text('changed')
  assert workdir._git_commit() == f'{commit}-dirty'


def test_library_needs_nothing_that_only_unix_has():
  code = """
import sys
sys.modules |= {'fcntl': None, 'resource': None}
import sslhsic
from sslhsic import inference, losses
from sslhsic.runs import workdir
from sslhsic.weights import export
assert workdir._peak_memory_bytes() is None
"""
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_second_job_is_refused_until_the_first_lets_go(tmp_path):
  first = workdir.claim(tmp_path / 'run', _config())
  with pytest.raises(
    ValueError, match=rf'in use by process {os.getpid()} on \S+; wait'
  ):
    workdir.claim(tmp_path / 'run', _config())
  first.close()
  workdir.claim(tmp_path / 'run', _config()).close()
