"""The loop, with an experiment small enough to be worked out by hand."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from sslhsic import parallel
from sslhsic.training import runner, writers


class Counter:
  """Adds up random numbers; the sum is its state."""

  CHECKPOINT_ATTRS = {'total': 'total'}  # noqa: RUF012
  NON_BROADCAST_CHECKPOINT_ATTRS = {'position': 'position'}  # noqa: RUF012
  batch_size = 4
  data_wait_s = 0.0
  summary = 'a counter'
  stop_at = None

  def __init__(self, mode, init_rng, config):
    self.num_steps = config.steps
    self.total = parallel.replicate(jnp.float32(0))
    self.position = 0

  def step(self, global_step, rng):
    if global_step == self.stop_at:
      raise KeyboardInterrupt
    self.total += jax.random.uniform(rng)
    self.position += 1
    return {'loss': parallel.first(self.total)}

  def evaluate(self, global_step, rng):
    return {'total': parallel.first(self.total)}

  def report(self, global_step, directory):
    return {'position': self.position}


def _config(steps=7, **settings):
  settings = {'log_every': 2, 'evaluate_every': 3, 'checkpoint_every': 2} | settings
  return ml_collections.ConfigDict(
    {'seed': 0, 'steps': steps, 'runner': settings | {'keep_checkpoints': 2}}
  )


def _run(path, mode='train_and_eval', experiment=Counter, **settings):
  runner.Runner(experiment, _config(**settings), path, mode).run()
  return path


def _results(path):
  return json.loads((path / 'results.json').read_text())


def test_run_leaves_all_its_files(tmp_path):
  _run(tmp_path)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {
    '.lock',
    'config.json',
    'checkpoints',
    'metrics.jsonl',
    'tensorboard',
    'figures',
    'results.json',
  }
  assert (tmp_path / 'figures' / 'curves.png').read_bytes()[:4] == b'\x89PNG'
  results = _results(tmp_path)
  assert results['steps'] == results['position'] == 7
  assert results['wall_time_s'] > 0
  assert results['images_per_second'] > 0


def test_logs_and_evaluations_come_when_they_are_due(tmp_path):
  rows = writers.read(_run(tmp_path))
  assert [row['step'] for row in rows if 'loss' in row] == [1, 2, 4, 6, 7]
  assert [row['step'] for row in rows if 'total' in row] == [3, 6, 7]


@pytest.mark.parametrize('stop_at', [1, 2, 5, 6])
def test_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, stop_at):
  whole = _results(_run(tmp_path / 'whole'))

  class Interrupted(Counter):
    pass

  Interrupted.stop_at = stop_at
  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path / 'parts', experiment=Interrupted)
  parts = _results(_run(tmp_path / 'parts'))
  assert parts['total'] == whole['total']
  assert parts['position'] == whole['position']
  losses = lambda path: [
    row['loss']
    for row in writers.read(path)
    if row['step'] in (1, 2, 4, 6, 7) and 'loss' in row
  ]
  assert losses(tmp_path / 'parts')[-1] == losses(tmp_path / 'whole')[-1]


def test_training_alone_does_not_evaluate(tmp_path):
  rows = writers.read(_run(tmp_path, mode='train'))
  assert not any('total' in row for row in rows)
  assert not (tmp_path / 'results.json').exists()


def test_evaluation_alone_reports_on_the_latest_checkpoint(tmp_path):
  _run(tmp_path, mode='train')
  _run(tmp_path, mode='eval')
  rows = writers.read(tmp_path)
  np.testing.assert_allclose(
    _results(tmp_path)['total'], next(row['loss'] for row in rows if row['step'] == 7)
  )


def test_nothing_to_evaluate_is_refused(tmp_path):
  with pytest.raises(ValueError, match='holds no checkpoint'):
    _run(tmp_path, mode='eval')
