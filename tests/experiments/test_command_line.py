"""Programs as a user runs them: real processes, killed and started again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A run of 40 steps of a small network, a checkpoint every 4.
TINY = (
  '--config.training.batch_size=32',
  '--config.training.epochs=1',
  '--config.training.warmup_epochs=0',
  '--config.network.head.hidden_size=16',
  '--config.network.encoder_options={"channels_per_group": (4, 8)}',
  '--config.runner.checkpoint_every=4',
  '--config.runner.log_every=1',
  '--config.runner.evaluate_every=0',
)


def _start(workdir, *arguments, config='configs/pretrain/digits.py'):
  environment = os.environ | {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.jax_cache'),
  }
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'experiments.pretrain',
      f'--config={config}',
      f'--workdir={workdir}',
      *arguments,
    ],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(process):
  out, err = process.communicate(timeout=300)
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
def whole(tmp_path_factory):
  """A run that nothing disturbed, with what it printed."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, _finish(_start(workdir, *TINY))


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
    assert list(by_count) == ['1', '5', '10']
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


@pytest.mark.parametrize('kills', [1, 3])
def test_killed_run_ends_with_the_same_bits(whole, tmp_path, kills):
  rng = np.random.default_rng(kills)
  for _ in range(kills):
    before = len(_steps(tmp_path)) and _steps(tmp_path)[-1]
    process = _start(tmp_path, *TINY, '--mode=train')
    while process.poll() is None and max(_steps(tmp_path), default=0) <= before:
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2))  # At any moment between two checkpoints.
    process.send_signal(signal.SIGKILL)
    process.communicate()
  _finish(_start(tmp_path, *TINY, '--mode=train'))
  expected, actual = _arrays(whole[0]), _arrays(tmp_path)
  flat = lambda tree: ocp.utils.to_flat_dict(tree)
  for key, value in flat(expected).items():
    np.testing.assert_array_equal(flat(actual)[key], value)
  steps = [
    json.loads(line)['step']
    for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert steps == list(range(1, steps[-1] + 1))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.los.name=byol'], "no field 'los'"),
    (['--config.training.batch_size=33'], 'batch size 33 does not divide over 2'),
    (['--config.data.source=imagenet'], "unknown data source 'imagenet'"),
    (['--config.loss.name=hsic'], "unknown loss 'hsic'"),
    (
      ['--config.loss.name=byol', '--config.target_network=False'],
      'byol needs a target network; use config.target_network = True',
    ),
    (['--config.loss.ssl_hsic.num_features=7'], 'num_features is 7'),
    (['--workdir=/proc/nowhere'], '/proc/nowhere'),
    (['--config=configs/none.py'], 'give --config=FILE.py'),
  ],
  ids=lambda value: value[0].split('=')[0] if isinstance(value, list) else '',
)
def test_mistake_ends_in_one_clear_line(tmp_path, arguments, message):
  assert message in _error(tmp_path / 'run', *arguments)
  assert not (tmp_path / 'run').exists() or not _steps(tmp_path / 'run')


def test_directory_of_another_configuration_is_left_alone(whole):
  workdir, _ = whole
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  message = _error(workdir, '--config.seed=1')
  assert 'holds a run of another configuration (seed: 0 there, 1 here)' in message
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def _error(workdir, *arguments):
  process = _start(workdir, *TINY, *arguments)
  _, err = process.communicate(timeout=120)
  assert process.returncode == 1
  (line,) = err.strip().splitlines()
  assert line.startswith('error: ')
  return line
