"""A working directory belongs to one configuration."""

import json
import os

import ml_collections
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


def test_second_job_is_refused_until_the_first_lets_go(tmp_path):
  first = workdir.claim(tmp_path / 'run', _config())
  with pytest.raises(
    ValueError, match=rf'in use by process {os.getpid()} on \S+; wait'
  ):
    workdir.claim(tmp_path / 'run', _config())
  first.close()
  workdir.claim(tmp_path / 'run', _config()).close()
