"""The loop, with an experiment small enough to be worked out by hand."""

import errno
import io
import json
import os
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sslhsic import parallel
from sslhsic.data.errors import InputError
from sslhsic.runs import checkpoint, runner, writers


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
  settings = {
    'log_every': 2,
    'evaluate_every': 3,
    'checkpoint_every': 2,
    'keep_checkpoints': 2,
  } | settings
  return ml_collections.ConfigDict({'seed': 0, 'steps': steps, 'runner': settings})


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


def test_what_a_run_begins_with_is_evaluated_before_any_step(tmp_path):
  class Begun(Counter):
    def begin(self):
      self.total = parallel.replicate(jnp.float32(5))
      return True

  for _ in range(2):  # As often as one likes.
    _run(tmp_path, mode='eval', experiment=Begun)
    results = _results(tmp_path)
    assert (results['total'], results['steps']) == (5, 0)
    assert [row['step'] for row in writers.read(tmp_path)] == [0]
  assert _steps(tmp_path) == []
  # The results would stand for those of the training.
  with pytest.raises(ValueError, match='holds results and no checkpoint; use another'):
    _run(tmp_path, experiment=Begun)

  class Killed(Begun):
    stop_at = 1

  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path / 'killed', experiment=Killed)
  shutil.rmtree(tmp_path / 'killed' / 'checkpoints')
  with pytest.raises(ValueError, match='holds logs of a training and no checkpoint'):
    _run(tmp_path / 'killed', mode='eval', experiment=Begun)


def _steps(path):
  return sorted(int(x.name) for x in (path / 'checkpoints').iterdir())


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_after_its_step_and_nothing_is_lost(tmp_path, capsys, number):
  whole = _results(_run(tmp_path / 'whole'))

  class Signalled(Counter):
    def step(self, global_step, rng):
      if global_step == 4:
        # From a scheduler: to the process, and to its group.
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
      return super().step(global_step, rng)

  of_tests = signal.getsignal(number)
  # Also where the tests themselves run under nohup.
  before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
  signal.signal(number, before)
  try:
    _run(tmp_path / 'parts', experiment=Signalled)
    assert signal.getsignal(number) is before
  finally:
    signal.signal(number, of_tests)
  assert f'stopped by {number.name} after step 5, which is saved' in (
    capsys.readouterr().out
  )
  assert _steps(tmp_path / 'parts')[-1] == 5
  assert not (tmp_path / 'parts' / 'results.json').exists()
  assert _results(_run(tmp_path / 'parts'))['total'] == whole['total']


def test_run_under_nohup_outlives_its_terminal(tmp_path):
  class HungUp(Counter):
    def step(self, global_step, rng):
      os.kill(os.getpid(), signal.SIGHUP)
      return super().step(global_step, rng)

  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    assert _results(_run(tmp_path, experiment=HungUp))['steps'] == 7
  finally:
    signal.signal(signal.SIGHUP, before)


def _signal_and_wait():
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(60)  # An evaluation of a large data set, which nobody waits for.


@pytest.mark.parametrize('method', ['evaluate', 'report'])
@pytest.mark.parametrize('mode', ['train_and_eval', 'eval'])
def test_signal_ends_an_evaluation_at_once(tmp_path, capsys, method, mode):
  class Signalled(Counter):
    pass

  setattr(Signalled, method, lambda self, *arguments: _signal_and_wait())
  if mode == 'eval':
    _run(tmp_path, mode='train')
  start = time.monotonic()
  _run(tmp_path, mode=mode, experiment=Signalled)
  assert time.monotonic() - start < 30
  step = 3 if (mode, method) == ('train_and_eval', 'evaluate') else 7
  assert f'stopped by SIGTERM {"after" if step == 3 else "during the report on"} ' in (
    capsys.readouterr().out
  )
  assert _steps(tmp_path)[-1] == step
  assert not (tmp_path / 'results.json').exists()
  assert _results(_run(tmp_path))['position'] == 7


def _raise(error):
  raise error


class _Closed(io.TextIOBase):
  """A pipe whose reader has ended."""

  def write(self, text):
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@pytest.mark.parametrize(
  ('error', 'raised'),
  [
    (OSError(errno.EIO, 'Input/output error'), runner.TrainingError),
    (InputError('a worker process of the loader has ended'), runner.TrainingError),
    (RuntimeError('a mistake in the program'), RuntimeError),
  ],
)
def test_every_error_between_steps_saves_the_last_one(tmp_path, caplog, error, raised):
  whole = _results(_run(tmp_path / 'whole'))

  class Failing(Counter):
    def step(self, global_step, rng):
      if global_step == 5:
        self.position += 1  # As an input that is ahead of its step.
        raise error
      return super().step(global_step, rng)

  with pytest.raises(raised, match=str(error.args[-1])) as told:
    _run(tmp_path / 'parts', experiment=Failing)
  assert 'the last good checkpoint is that of step 5' in f'{told.value} {caplog.text}'
  assert _steps(tmp_path / 'parts')[-1] == 5
  results = _results(_run(tmp_path / 'parts'))
  assert (results['total'], results['position']) == (whole['total'], whole['position'])


def test_error_before_the_first_step_leaves_no_checkpoint(tmp_path):
  """Parameters that nothing has trained yet are no encoder to start from."""

  class Failing(Counter):
    def step(self, global_step, rng):
      raise InputError('too many images cannot be used')

  with pytest.raises(runner.TrainingError, match='too many images') as told:
    _run(tmp_path, experiment=Failing)
  assert 'there is no good checkpoint' in str(told.value)
  assert not _steps(tmp_path)
  assert _results(_run(tmp_path))['position'] == 7


def test_closed_pipe_saves(tmp_path, monkeypatch):
  class Unread(Counter):
    def evaluate(self, global_step, rng):
      monkeypatch.setattr('sys.stdout', _Closed())
      return super().evaluate(global_step, rng)

  with pytest.raises(runner.TrainingError, match=r'Broken pipe; .* of step 3'):
    _run(tmp_path, experiment=Unread)
  assert _steps(tmp_path)[-1] == 3


def test_report_does_not_need_anybody_to_read_it(tmp_path, monkeypatch):
  _run(tmp_path, mode='train')
  made = runner.Runner(Counter, _config(), tmp_path, 'eval')
  monkeypatch.setattr('sys.stdout', _Closed())
  made.run()
  assert _results(tmp_path)['position'] == 7


def test_step_that_was_half_done_is_not_saved(tmp_path):
  class Failing(Counter):
    def step(self, global_step, rng):
      super().step(global_step, rng)
      if global_step == 5:
        raise OSError('too late')

      return {'loss': 0.0}

  with pytest.raises(runner.TrainingError, match=r'too late; .* of step 4'):
    _run(tmp_path, experiment=Failing)
  assert _steps(tmp_path)[-1] == 4


def test_state_is_saved_before_an_evaluation_that_fails(tmp_path):
  class Failing(Counter):
    def evaluate(self, global_step, rng):
      raise KeyError('knn')

  message = r"evaluation after step 3 failed: KeyError 'knn'; .* of step 3"
  with pytest.raises(runner.TrainingError, match=message):
    _run(tmp_path, experiment=Failing)
  assert _steps(tmp_path)[-1] == 3


@pytest.mark.parametrize('method', ['evaluate', 'report'])
def test_part_of_a_report_that_fails_is_named_and_the_rest_written(tmp_path, method):
  class Failing(Counter):
    pass

  setattr(Failing, method, lambda *_: _raise(ValueError('one image only')))
  message = 'named in results.json: .*: one image only; the rest is written'
  with pytest.raises(runner.TrainingError, match=message):
    _run(tmp_path, experiment=Failing, evaluate_every=0)
  results = _results(tmp_path)
  part, kept = {'evaluate': ('evaluation', 'position'), 'report': ('report', 'total')}[
    method
  ]
  assert results['failed'] == {part: 'one image only'}
  assert results['steps'] == 7
  assert kept in results
  _run(tmp_path, mode='eval')
  assert 'failed' not in _results(tmp_path)


def test_curves_that_cannot_be_drawn_are_named(tmp_path, monkeypatch):
  monkeypatch.setattr(runner.curves, 'plot', lambda *_: _raise(MemoryError()))
  with pytest.raises(runner.TrainingError, match='curves: MemoryError'):
    _run(tmp_path)
  assert _results(tmp_path)['position'] == 7


def test_time_too_decides_when_to_save(tmp_path):
  settings = {'checkpoint_every': 0, 'evaluate_every': 0, 'keep_checkpoints': 9}
  _run(tmp_path / 'by_steps', mode='train', **settings)
  assert _steps(tmp_path / 'by_steps') == [7]
  _run(tmp_path / 'always', mode='train', checkpoint_minutes=1e-9, **settings)
  assert _steps(tmp_path / 'always') == [1, 2, 3, 4, 5, 6, 7]


def test_failed_start_lets_go_of_the_directory(tmp_path):
  class Failing(Counter):
    def __init__(self, *arguments):
      raise ValueError('no such data')

  with pytest.raises(ValueError, match='no such data') as held:
    runner.Runner(Failing, _config(), tmp_path, 'train')
  _run(tmp_path)
  del held


def test_checkpoint_that_cannot_be_read_back_ends_the_run(tmp_path, monkeypatch):
  save = ocp.CheckpointManager.save

  def damaging(manager, step, args):
    save(manager, step, args=args)
    for file in (tmp_path / 'checkpoints' / str(step)).rglob('*'):
      if file.is_file():
        os.truncate(file, file.stat().st_size // 2)

  monkeypatch.setattr(ocp.CheckpointManager, 'save', damaging)
  message = 'save the checkpoint of step .: it cannot be read back: .*; there is no'
  with pytest.raises(runner.TrainingError, match=message):
    _run(tmp_path)
  assert (tmp_path / 'damaged' / '2').is_dir()


@pytest.mark.parametrize('name', ['run[1]', 'run?', 'a*b', 'run{1}'])
def test_run_resumes_where_its_path_looks_like_a_pattern(tmp_path, name):
  """Orbax globs its own directory, and would not find a checkpoint there."""
  whole = _results(_run(tmp_path / 'whole'))

  class Interrupted(Counter):
    stop_at = 5

  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path / name, experiment=Interrupted)
  assert checkpoint.read(tmp_path / name / 'checkpoints').step == 5
  assert _results(_run(tmp_path / name))['total'] == whole['total']
  assert (tmp_path / name / 'checkpoints' / '7').is_dir()


def test_directory_that_holds_a_checkpoint_of_another_program_is_named(tmp_path):
  _run(tmp_path, mode='train')

  class Newer(Counter):
    NON_BROADCAST_CHECKPOINT_ATTRS = {'position': 'position', 'stop_at': 'queue'}  # noqa: RUF012

  with pytest.raises(ValueError, match=r'step 7 in .* has no queue: another'):
    _run(tmp_path, experiment=Newer)


class Diverging(Counter):
  """Its loss, or only its state, is infinite after a step."""

  diverges_at, loss_shows_it = 5, True

  def step(self, global_step, rng):
    scalars = super().step(global_step, rng)
    if global_step == self.diverges_at - 1:
      self.total += jnp.inf
      if self.loss_shows_it:
        scalars = {'loss': parallel.first(self.total)}
    return scalars

  def describe_batch(self, global_step):
    return {'index': [global_step * 4 + row for row in range(4)]}


@pytest.mark.parametrize(('step', 'term'), [(5, 'loss is inf'), (6, r"\['total'\]")])
def test_infinite_step_stops_the_run_and_is_not_saved(tmp_path, step, term):
  class Experiment(Diverging):
    diverges_at, loss_shows_it = step, term.startswith('loss')

  message = f'step {step} is not finite: .*{term}.*; the last good .* of step 4; its'
  with pytest.raises(runner.TrainingError, match=message):
    _run(tmp_path, experiment=Experiment)
  assert _steps(tmp_path)[-1] == 4
  bad = json.loads((tmp_path / 'bad_batch.json').read_text())
  assert bad['step'] == step
  assert bad['index'] == [(step - 1) * 4 + row for row in range(4)]


@pytest.fixture
def full_disk(monkeypatch):
  """Of the saves, the one of step 4 finds no room."""
  save = ocp.CheckpointManager.save

  def fail(manager, step, args):
    if step == 4:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return save(manager, step, args=args)

  monkeypatch.setattr(ocp.CheckpointManager, 'save', fail)


def test_full_disk_stops_the_run(tmp_path, full_disk):
  message = r'step 4: .*No space left on device; the last good checkpoint is that of'
  with pytest.raises(runner.TrainingError, match=message):
    _run(tmp_path)
  assert 4 not in _steps(tmp_path)


def test_full_disk_does_not_stop_a_run_that_shall_go_on(tmp_path, full_disk, caplog):
  _run(tmp_path, on_save_error='continue')
  assert 'could not save the checkpoint of step 4' in caplog.text
  assert _steps(tmp_path) == [6, 7]
  assert _results(tmp_path)['steps'] == 7


def test_collapse_is_warned_of(tmp_path, caplog):
  collapse = {'minima': {'total': 100.0}, 'patience': 2}
  _run(tmp_path, collapse=collapse)
  assert caplog.text.count('step 6: collapse? total') == 1


def test_directory_in_use_is_refused(tmp_path):
  first = runner.Runner(Counter, _config(), tmp_path, 'train')
  with pytest.raises(ValueError, match='is in use by process'):
    _run(tmp_path)
  first.run()
  _run(tmp_path)


def test_profile_of_some_steps_is_written(tmp_path):
  runner.Runner(Counter, _config(), tmp_path, 'train', profile='2:4').run()
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
  with pytest.raises(ValueError, match=r"--profile is '4:4', expected START:STOP"):
    runner.Runner(Counter, _config(), tmp_path, 'train', profile='4:4')
  with pytest.raises(
    ValueError, match=r'starts at step 900, but the run has \d+, from'
  ):
    runner.Runner(Counter, _config(), tmp_path, 'train', profile='900:910')
