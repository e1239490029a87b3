"""Evaluations of a training that another job runs."""

import os
import pathlib
import shutil
import signal

import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
import pytest

from sslhsic import parallel
from sslhsic.runs import following, runner, workdir, writers

NUM_STEPS = 7


class Total:
  """Adds up the numbers of its steps; notes which totals were evaluated."""

  CHECKPOINT_ATTRS = {'total': 'total'}  # noqa: RUF012
  NON_BROADCAST_CHECKPOINT_ATTRS = {}  # noqa: RUF012
  batch_size = 4
  data_wait_s = 0.0
  summary = 'a total'

  def __init__(self, mode, init_rng, config):
    self.num_steps = config.steps
    self.total = parallel.replicate(jnp.float32(0))

  def step(self, global_step, rng):
    self.total += global_step + 1
    return {'loss': parallel.first(self.total)}

  def evaluate(self, global_step, rng):
    return {'total': parallel.first(self.total)}

  def report(self, global_step, directory):
    return {'reported': float(parallel.first(self.total))}


def _config(steps=NUM_STEPS, **settings):
  settings = {
    'log_every': 0,
    'evaluate_every': 0,
    'checkpoint_every': 2,
    'keep_checkpoints': 2,
  } | settings
  return ml_collections.ConfigDict({'seed': 0, 'steps': steps, 'runner': settings})


def _train(path, until=NUM_STEPS, **settings):
  """Trains up to a step after which it is killed, or to the end."""

  class Interrupted(Total):
    def step(self, global_step, rng):
      if global_step == until:
        raise KeyboardInterrupt
      return super().step(global_step, rng)

  made = runner.Runner(Interrupted, _config(**settings), path, 'train')
  if until == NUM_STEPS:
    made.run()
    return
  with pytest.raises(KeyboardInterrupt):
    made.run()


def _follow(path, followed, experiment=Total, **settings):
  runner.Runner(experiment, _config(**settings), path, 'eval', follow=followed).run()


@pytest.fixture
def meanwhile(monkeypatch):
  """A function of what happens, one after another, each time the follower waits."""

  def set_up(*actions):
    remaining = iter(actions)
    monkeypatch.setattr(following, 'wait', lambda: next(remaining)())

  return set_up


def _files(path):
  """Everything in a directory, with sizes and times."""
  stats = {file: file.stat() for file in path.rglob('*')}
  return {file: (x.st_size, x.st_mtime_ns) for file, x in stats.items()}


def _evaluated(path):
  return [(row['step'], row['total']) for row in writers.read(path)]


def test_each_checkpoint_is_evaluated_as_it_comes(tmp_path, meanwhile):
  training, own = tmp_path / 'training', tmp_path / 'own'
  seen, held = [], []

  def untouched(action):
    """Notes the files after an action, and compares before the next one."""

    def run():
      assert not seen or _files(training) == seen.pop()
      action()
      seen.append(_files(training))

    return run

  def begin():
    held.append(workdir.claim(training, _config()))  # As a job that has it.

  meanwhile(
    lambda: None,  # The training has not begun.
    lambda: _train(training, until=3),
    untouched(begin),
    untouched(lambda: held.pop().close()),
    lambda: seen.clear() or _train(training),
  )
  _follow(own, training)
  # Two are kept at any time: the third had gone before the follower came.
  assert _evaluated(own) == [(2, 3.0), (3, 6.0), (6, 21.0), (7, 28.0)]
  results = workdir.read_json(own / 'results.json')
  assert (results['steps'], results['total'], results['reported']) == (7, 28.0, 28.0)
  assert results['wall_time_s'] > 0
  assert not (training / 'results.json').exists()
  assert (own / 'figures' / 'curves.png').exists()


def test_training_that_is_not_measured_on_the_way_can_be_followed(tmp_path):
  class Unmeasured(Total):
    def evaluate(self, global_step, rng):
      return {}

  _train(tmp_path / 'training')
  _follow(tmp_path / 'own', tmp_path / 'training', Unmeasured)
  assert workdir.read_results(tmp_path / 'own')['reported'] == 28.0


def test_follower_resumes_without_evaluating_twice(tmp_path, meanwhile, capsys):
  training, own = tmp_path / 'training', tmp_path / 'own'
  evaluated = []

  class Noted(Total):
    def evaluate(self, global_step, rng):
      evaluated.append(global_step)
      return super().evaluate(global_step, rng)

  _train(training, until=3)
  meanwhile(lambda: os.kill(os.getpid(), signal.SIGTERM))
  _follow(own, training, Noted)
  assert f'stopped by SIGTERM while following {training}' in capsys.readouterr().out
  assert not (own / 'results.json').exists()
  _train(training, until=5)
  meanwhile(lambda: _train(training))
  _follow(own, training, Noted)
  assert evaluated == [2, 3, 4, 5, 6, 7]
  assert [step for step, _ in _evaluated(own)] == evaluated
  # One that is done is reported on again, as the evaluation of a run is.
  _follow(own, training)
  assert [step for step, _ in _evaluated(own)] == evaluated


def test_checkpoint_that_is_removed_while_it_is_read_is_left_out(
  tmp_path, monkeypatch, caplog
):
  training = tmp_path / 'training'
  _train(training, keep_checkpoints=9)
  restore = ocp.CheckpointManager.restore

  def removing(manager, step, **settings):
    if step == 2:
      shutil.rmtree(training / 'checkpoints' / '2')
    return restore(manager, step, **settings)

  monkeypatch.setattr(ocp.CheckpointManager, 'restore', removing)
  _follow(tmp_path / 'own', training)
  assert [step for step, _ in _evaluated(tmp_path / 'own')] == [4, 6, 7]
  assert not caplog.text


def test_damaged_checkpoint_is_left_out_with_a_warning(tmp_path, meanwhile, caplog):
  training = tmp_path / 'training'
  _train(training, until=5, keep_checkpoints=9)
  for file in (training / 'checkpoints' / '5').rglob('*'):
    if file.is_file():
      os.truncate(file, file.stat().st_size // 2)
  nothing = lambda: None
  meanwhile(nothing, nothing, nothing, lambda: _train(training, keep_checkpoints=9))
  _follow(tmp_path / 'own', training)
  assert [step for step, _ in _evaluated(tmp_path / 'own')] == [2, 4, 6, 7]
  assert caplog.text.count('checkpoints/5 is damaged') == 1


def test_evaluation_that_fails_is_made_by_the_same_command(tmp_path):
  class Failing(Total):
    def evaluate(self, global_step, rng):
      if global_step == 4:
        raise ValueError('no such data')
      return super().evaluate(global_step, rng)

  training, own = tmp_path / 'training', tmp_path / 'own'
  _train(training, keep_checkpoints=9)
  message = 'evaluation after step 4 failed: no such data; correct it, and the same'
  with pytest.raises(runner.TrainingError, match=message):
    _follow(own, training, Failing)
  _follow(own, training)
  assert [step for step, _ in _evaluated(own)] == [2, 4, 6, 7]


@pytest.mark.parametrize(
  ('own', 'mode', 'message'),
  [
    ('training', 'eval', '--workdir and --follow are both'),
    ('other', 'eval', 'other holds checkpoints of a run; give the evaluations of'),
    ('own', 'train', '--follow needs --mode=eval, and --mode is train'),
  ],
)
def test_evaluations_need_a_directory_of_their_own(tmp_path, own, mode, message):
  for name in ('training', 'other'):
    _train(tmp_path / name)
  before = _files(tmp_path)
  with pytest.raises(ValueError, match=message):
    runner.Runner(
      Total, _config(), tmp_path / own, mode, follow=pathlib.Path(tmp_path / 'training')
    )
  assert _files(tmp_path) == before


def test_training_of_another_configuration_is_an_error(tmp_path):
  _train(tmp_path / 'training')
  message = 'holds a run of another configuration .steps: 7 there, 8 here'
  with pytest.raises(runner.TrainingError, match=message):
    _follow(tmp_path / 'own', tmp_path / 'training', steps=8)
