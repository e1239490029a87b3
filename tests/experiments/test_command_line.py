"""Programs as a user runs them: real processes, killed and started again."""

import json

import pytest

from benchmarks import faults

TINY = ('--config=configs/pretrain/digits.py', *faults.TINY)


@pytest.fixture(scope='module')
def pretrain(start):
  """A function that starts a tiny run in a working directory."""
  return lambda workdir, *arguments: start(
    'experiments.pretrain', *TINY, f'--workdir={workdir}', *arguments
  )


def _finish(process):
  out, err = process.communicate(timeout=600)
  assert process.returncode == 0, err
  return out


@pytest.fixture(scope='module')
def whole(tmp_path_factory, pretrain):
  """A run that nothing disturbed, with what it printed."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, _finish(pretrain(workdir))


def test_run_prints_the_table_and_writes_results(whole):
  workdir, out = whole
  results = json.loads((workdir / 'results.json').read_text())
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
  result = faults.kills(tmp_path, whole[0], faults.TINY, count=3, seed=1)
  assert result['lost'] == []
  assert sum(result['tried'].values()) == 3


MISTAKES = [
  ('--config.los.name=byol', "no field 'los'"),
  ('--config.training.batch_size=33', 'batch size 33 does not divide over 2'),
  ('--config.data.source=imagenet', "unknown data source 'imagenet'"),
  ('--config.loss.name=hsic', "unknown loss 'hsic'"),
  (
    '--config.loss.name=byol --config.target_network=False',
    'byol needs a target network; use config.target_network = True',
  ),
  ('--config.loss.ssl_hsic.num_features=7', 'num_features is 7'),
  ('--workdir=/proc/nowhere', '/proc/nowhere'),
  ('--config=configs/none.py', 'give --config=FILE.py'),
]


@pytest.fixture(scope='module')
def mistaken(start, tmp_path_factory):
  """Of each mistake the exit code, standard error and working directory."""
  directory = tmp_path_factory.mktemp('mistakes')
  runs = [
    [directory / f'{i}.txt', directory / str(i), *arguments.split()]
    for i, (arguments, _) in enumerate(MISTAKES)
  ]
  process = start('tests.experiments.forks', 'experiments.pretrain')
  out, err = process.communicate(
    ''.join(
      json.dumps([str(errors), *TINY, f'--workdir={workdir}', *arguments]) + '\n'
      for errors, workdir, *arguments in runs
    ),
    timeout=600,
  )
  assert process.returncode == 0, err
  return {
    arguments: (code, errors.read_text(), workdir)
    for (arguments, _), code, (errors, workdir, *_) in zip(
      MISTAKES, json.loads(out), runs, strict=True
    )
  }


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_mistake_ends_in_one_clear_line(mistaken, arguments, message):
  code, errors, workdir = mistaken[arguments]
  assert message in _one_line(code, errors)
  assert not workdir.exists() or not faults.steps(workdir)


def test_directory_of_another_configuration_is_left_alone(whole, pretrain):
  workdir, _ = whole
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  process = pretrain(workdir, '--config.seed=1')
  _, errors = process.communicate(timeout=600)
  message = 'holds a run of another configuration (seed: 0 there, 1 here)'
  assert message in _one_line(process.returncode, errors)
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def _one_line(code, errors):
  assert code == 1
  (line,) = errors.strip().splitlines()
  assert line.startswith('error: ')
  return line
