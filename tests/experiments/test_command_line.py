"""Programs as a user runs them: real processes, killed and started again."""

import json
import signal
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

# A run of 20 steps of a small network, a checkpoint every 4.
TINY = (
  '--config=configs/pretrain/digits.py',
  '--config.data.train_split=train[:320]',
  '--config.training.batch_size=32',
  '--config.training.epochs=2',
  '--config.training.warmup_epochs=0',
  '--config.network.head.hidden_size=16',
  '--config.network.encoder_options={"channels_per_group": (4, 8)}',
  '--config.evaluation.train_split=train[:400]',
  '--config.evaluation.test_split=test[:90]',
  '--config.evaluation.batch_size=90',
  '--config.evaluation.protocol.labels_per_class=(1, 10)',
  '--config.runner.checkpoint_every=4',
  '--config.runner.log_every=1',
  '--config.runner.evaluate_every=0',
)


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


def _steps(workdir):
  checkpoints = workdir / 'checkpoints'
  if not checkpoints.exists():
    return []
  return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def _arrays(workdir):
  manager = ocp.CheckpointManager(workdir / 'checkpoints')
  restored = manager.restore(
    manager.latest_step(), args=ocp.args.Composite(arrays=ocp.args.StandardRestore())
  )
  manager.close()
  return restored.arrays


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


def test_killed_run_ends_with_the_same_bits(whole, pretrain, tmp_path):
  """Killed three times: when started anew, and when going on from a checkpoint."""
  rng = np.random.default_rng(0)
  for _ in range(3):
    before = max(_steps(tmp_path), default=0)
    process = pretrain(tmp_path, '--mode=train')
    while process.poll() is None and max(_steps(tmp_path), default=0) <= before:
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2))  # At any moment between two checkpoints.
    process.send_signal(signal.SIGKILL)
    process.communicate()
  _finish(pretrain(tmp_path, '--mode=train'))
  expected, actual = _arrays(whole[0]), _arrays(tmp_path)
  flat = lambda tree: ocp.utils.to_flat_dict(tree)
  for key, value in flat(expected).items():
    np.testing.assert_array_equal(flat(actual)[key], value)
  steps = [
    json.loads(line)['step']
    for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert steps == list(range(1, steps[-1] + 1))


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
  assert not workdir.exists() or not _steps(workdir)


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
