"""Programs as a user runs them: real processes, killed and started again."""

import json
import sys

import jax
import pytest

from benchmarks import faults, tiny_runs
from sslhsic.runs import command_line, processes
from tests.experiments import forks

CONFIG = '--config=configs/pretrain/digits.py'
# Embeddings of the size of the images: the same programs compare both.
TINY = (
  *tiny_runs.TINY,
  '--config.network.encoder_options='
  '{"blocks_per_group": (1,), "channels_per_group": (64,)}',
)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nothing disturbed, with what it printed."""
  workdir = tmp_path_factory.mktemp('whole')
  # Without git, and with output that knows no ×.
  where = {'PATH': str(workdir), 'PYTHONIOENCODING': 'ascii'}
  return workdir, tiny_runs.start(workdir, *TINY, **where).finish().out


def test_run_prints_the_table_and_writes_results(whole):
  workdir, out = whole
  results = json.loads((workdir / 'results.json').read_text())
  assert results['git_commit'] is None
  assert {
    'linear_top1',
    'knn_top1',
    'few_label_top1',
    'wall_time_s',
    'images_per_second',
    'protocol',
    'versions',
    'git_commit',
  } <= results.keys()
  names = ['pixels', 'untrained', 'trained']
  assert list(results['few_label_top1']) == names
  for by_count in results['few_label_top1'].values():
    assert list(by_count) == ['1', '10']
    assert by_count['1'] < by_count['10']
  assert results['knn_top1'] == results['representations']['trained']['knn_top1']
  assert [line.split()[0] for line in out.splitlines() if line.split()[0] in names] == (
    names
  )
  knn = results['knn_top1']
  assert f'kNN {100 * knn:.1f} % (pixels ' in out
  assert f'see {workdir / "results.json"} and, in figures/, curves.png, embed' in out
  for name in ('curves.png', 'embeddings.png'):
    assert (workdir / 'figures' / name).read_bytes()[:4] == b'\x89PNG'


def test_every_term_of_the_loss_is_logged(whole):
  lines = (whole[0] / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  terms = {'loss', 'hsic_zy', 'hsic_zz', 'kernel_scale', 'projection_std'}
  assert all(terms <= row.keys() for row in rows[:-1])
  assert {'knn_top1', 'online_top1', 'embedding_std', 'effective_rank'} <= rows[
    -1
  ].keys()


def test_killed_run_ends_with_the_same_bits(whole, tmp_path):
  """Three kills of different kinds; `python -m benchmarks.faults` makes many."""
  with forks.forked():
    result = faults.kills(tmp_path, whole[0], TINY, count=3, seed=1)
  assert result['lost'] == []
  assert sum(result['tried'].values()) == 3


def test_what_xla_says_when_it_ends_the_process_is_printed(tmp_path):
  program = tiny_runs.start(tmp_path, XLA_FLAGS='--xla_no_such_flag=1')
  assert program.end() != 0
  assert 'Unknown flag in XLA_FLAGS: --xla_no_such_flag' in program.err


MISTAKES = [
  (
    '--config.los.name=byol',
    "no field 'los.name'; did you mean loss.name",
  ),
  (
    '--config.training.epoch=3',
    "no field 'training.epoch'; did you mean training.epochs",
  ),
  ('--config.training.batch_size=0', 'config.training.batch_size is 0; use 1 or more'),
  ('--config.training.batch_size=512', 'is 512, but digits train[:320] has 320 images'),
  ('--config.seed=-1', 'config.seed is -1; use 0 or more'),
  ('--config.runner.keep_checkpoints=0', 'config.runner.keep_checkpoints is 0'),
  ('--workdir=az://bucket/run', "--workdir is 'az://bucket/run', an address"),
  ('--config.training.batch_size=33', 'batch size 33 does not divide over 2'),
  ('--config.data.source=imagenet', "unknown data source 'imagenet'"),
  ('--config.loss.name=hsic', "unknown loss 'hsic'"),
  (
    '--config.loss.name=byol --config.target_network=False',
    'byol needs a target network; use config.target_network = True',
  ),
  ('--config.loss.ssl_hsic.num_features=7', "a setting of the estimator 'features'"),
  ('--workdir=/proc/nowhere', '/proc/nowhere'),
  ('--config=', 'no configuration: give --config=FILE.py'),
  ('--config=configs/pretrain/digit.py', 'did you mean digits.py'),
  ('--batch_size=8', '--config.evaluation.batch_size or --config.training.batch_size?'),
  ('--config.data.source=/proc', "did you mean 'folder:/proc'?"),
]


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_mistake_ends_in_one_clear_line(run_program, arguments, message, tmp_path):
  where = CONFIG, *TINY, f'--workdir={tmp_path / "run"}'
  code, _, errors = run_program('pretrain', *where, *arguments.split(), devices=2)
  assert message in _one_line(code, errors)
  assert not tiny_runs.steps(tmp_path / 'run')


def test_configuration_of_another_program_is_refused(run_program, tmp_path):
  code, _, errors = run_program('knn', CONFIG, f'--workdir={tmp_path}')
  message = 'is a configuration of experiments.pretrain; give experiments.knn one of'
  assert message in _one_line(code, errors)


def test_too_little_memory_ends_in_one_line(monkeypatch, capsys):
  def program(config, path):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory.\nAllocations')

  monkeypatch.setattr(processes, 'leave', sys.exit)
  with pytest.raises(SystemExit), command_line._memory_errors():
    program(None, None)
  assert 'RESOURCE_EXHAUSTED: Out of memory; use a smaller config.evaluation.batch' in (
    capsys.readouterr().err
  )


def test_program_without_configuration_takes_none(monkeypatch, capsys):
  monkeypatch.setattr(processes, 'leave', sys.exit)
  with pytest.raises(SystemExit):
    command_line._parse_flags(['reproduce', '--config.training.epochs=2'])
  assert "error: Unknown command line flag 'config" in capsys.readouterr().err


def test_directory_of_another_configuration_is_left_alone(whole, run_program):
  workdir, _ = whole
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  arguments = CONFIG, *TINY, f'--workdir={workdir}', '--config.seed=1'
  code, _, errors = run_program('pretrain', *arguments, devices=2)
  message = 'holds a run of another configuration (seed: 0 there, 1 here)'
  assert message in _one_line(code, errors)
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def _one_line(code, errors):
  assert code == 1
  (line,) = errors.strip().splitlines()
  assert line.startswith('error: ')
  return line
