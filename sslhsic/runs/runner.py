"""The loop around an experiment: progress, logs, checkpoints, results, and faults."""

import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from absl import flags, logging

from sslhsic import parallel
from sslhsic.data import errors
from sslhsic.plots import curves
from sslhsic.runs import (
  checkpoint,
  command_line,
  health,
  in_flight,
  processes,
  profiling,
  progress,
  stopping,
  workdir,
  writers,
)
from sslhsic.runs.experiment import Experiment, Scalars

_MODE = flags.DEFINE_enum(
  'mode',
  'train_and_eval',
  ['train', 'eval', 'train_and_eval'],
  'train: no evaluation; eval: evaluate the latest checkpoint and report; '
  'train_and_eval: train, evaluate on the way, report at the end.',
)
_PROFILE = flags.DEFINE_string(
  'profile', None, 'START:STOP, the steps that WORKDIR/profile shows to TensorBoard.'
)


class TrainingError(Exception):
  """The training cannot go on; says why, and from where it can."""


def main(experiment_class: type[Experiment]) -> None:
  """Runs a program from its command line; see `command_line.main`.

  Besides mistakes in the command, a wrong configuration, data that cannot be used and
  whatever ends a training early end it with one line.
  """

  def run(config, path):
    others = processes.OtherProcessError
    with command_line.one_line_errors(ValueError, OSError, others):
      runner = Runner(experiment_class, config, path, _MODE.value, _PROFILE.value)
    with (
      command_line.one_line_errors(errors.InputError, TrainingError, OSError, others),
      processes.lost_others(),
    ):
      runner.run()

  command_line.main(run)


class Runner:
  """One run of an experiment in its working directory.

  Each of several processes has one; the first alone reads and writes the directory.

  Args:
    experiment_class: what to run.
    config: its configuration, with the runner's own in `config.runner`.
    path: the working directory.
    mode: 'train', 'eval' or 'train_and_eval'.
    profile: the steps to profile, 'START:STOP', if any.

  Raises, when constructed:
    ValueError: the configuration is wrong, the directory holds a run of another or is
      in use, or none of its checkpoints is good.
    OSError: the directory cannot be written.
    OtherProcessError: one of these, of the first process; in the others.
  """

  def __init__(
    self,
    experiment_class: type[Experiment],
    config: ml_collections.ConfigDict,
    path: pathlib.Path,
    mode: str,
    profile: str | None = None,
  ):
    self._start = time.perf_counter()
    self._config = config.runner
    self._path = path
    self._mode = mode
    self._on_save_error = self._config.get('on_save_error', 'stop')
    if self._on_save_error not in ('stop', 'continue'):
      raise ValueError(
        f'config.runner.on_save_error is {self._on_save_error!r}, expected stop or '
        'continue'
      )
    self._profile = profiling.Profile(path / 'profile', profile)
    self._lock = processes.first_does(lambda: workdir.claim(path, config))
    _keep_compilations(path)
    init_rng, rng = jax.random.split(jax.random.key(config.seed))
    self._rng = np.asarray(jax.random.key_data(rng))
    experiment_mode = 'eval' if mode == 'eval' else 'train'
    self._experiment = experiment_class(experiment_mode, init_rng, config)
    self._wait_for_state()
    self._checkpointer = processes.first_does(
      lambda: checkpoint.Checkpointer(
        path / 'checkpoints', keep=self._config.keep_checkpoints
      )
    )
    self._step = self._restore()
    if mode == 'eval' and not self._step:
      raise ValueError(f'{path} holds no checkpoint to evaluate; train there first')
    processes.first_does(lambda: workdir.write_config(path, config))
    self._stop = stopping.StopRequest()
    self._in_flight = in_flight.InFlight()
    collapse = self._config.get('collapse', {'minima': {}, 'patience': 1})
    self._collapse = health.CollapseWatch(collapse['minima'], collapse['patience'])
    self._is_stopped = False
    self._must_stop = False
    self._trouble = ''

  def run(self) -> None:
    """Trains, evaluates, or both, and reports; or stops early when asked by a signal.

    Raises:
      TrainingError: the training cannot go on.
      OtherProcessError: it cannot in the first process; in the others.
    """
    self._writer = processes.first_does(
      lambda: writers.MetricWriter(self._path, self._step)
    )
    try:
      if self._mode != 'eval':
        self._train()
      if self._mode != 'train' and not self._is_stopped:
        self._report()
      processes.wait_for_all()
    except health.NotFiniteError as error:
      raise self._not_finite(error) from error
    finally:
      self._profile.close()
      if processes.is_first():
        self._writer.close()
        self._checkpointer.close()
        self._lock.close()

  # Training

  def _train(self) -> None:
    print(self._experiment.summary)
    with self._stop, progress.Progress(self._experiment, self._step) as line:
      while self._step < self._experiment.num_steps and not self._is_stopped:
        self._profile.before_step(self._step)
        scalars = self._experiment.step(self._step, self._rng)
        self._step += 1
        line.advance()
        self._in_flight.add(self._step, scalars)
        if self._is_due(self._config.log_every) or self._step == 1:
          scalars = _to_floats(scalars)
          self._log({**scalars, **line.log(scalars)}, line)
        self._between_steps(line)
        self._is_stopped = self._stop.is_reached(self._step) or self._has_failed()
      self._end_training()

  def _between_steps(self, line: progress.Progress) -> None:
    if self._profile.is_due(self._step):
      self._in_flight.finish()
      self._profile.close()
    is_last = self._step == self._experiment.num_steps
    evaluates = self._mode == 'train_and_eval' and not is_last  # The report does, then.
    if evaluates and self._is_due(self._config.evaluate_every):
      self._in_flight.finish()
      self._evaluate(line)
      line.restart()
    if self._is_due(self._config.checkpoint_every):
      self._save()
      line.restart()
    elif processes.is_first():
      self._excuse(self._checkpointer.check)

  def _end_training(self) -> None:
    """Waits until all is saved; says how the training has ended, if early."""
    if self._is_stopped:
      self._save()
    processes.first_does(self._finish_saving)
    if self._is_stopped:
      name = self._stop.signal.name if self._stop.signal else 'a signal'
      print(
        f'stopped by {name} after step {self._step}, which is saved; the same command '
        'goes on from there'
      )

  def _finish_saving(self) -> None:
    try:
      self._checkpointer.wait()
    except checkpoint.SaveError as error:
      self._note_trouble(error)
      if self._is_stopped:  # Whatever is set: there is nothing to go on with.
        self._must_stop = True
    if self._must_stop:
      raise TrainingError(f'{self._trouble}; {self._checkpointer.last_good()}')

  def _has_failed(self) -> bool:
    """Whether this process must stop on its own account; it takes the others along."""
    if self._must_stop and jax.process_count() > 1:
      self._stop.ask_all()
      return False  # They stop together, a few steps later.
    return self._must_stop

  def _excuse(self, action: Callable[[], None]) -> None:
    """Does something that a full disk may prevent; if so, stops or goes on, as set."""
    try:
      action()
    except (checkpoint.SaveError, OSError) as error:
      self._note_trouble(error)

  def _note_trouble(self, error: Exception) -> None:
    if self._on_save_error == 'stop':
      self._must_stop = True
    elif str(error) != self._trouble:
      logging.warning('%s; %s', error, self._checkpointer.last_good())
    self._trouble = str(error)

  def _not_finite(self, error: health.NotFiniteError) -> TrainingError:
    """What to tell of a step that is not finite; writes `bad_batch.json`."""
    message = str(error)
    if processes.is_first():
      message += f'; {self._checkpointer.last_good()}'
      describe = getattr(self._experiment, 'describe_batch', None)
      if describe:
        path = self._path / 'bad_batch.json'
        batch = {'step': error.step, 'terms': error.terms, **describe(error.step - 1)}
        writers.write_atomically(path, json.dumps(batch, indent=2) + '\n')
        message += f'; its batch is in {path}'
    return TrainingError(message)

  def _is_due(self, every: int) -> bool:
    """Whether something that happens `every` steps, and at the end, happens now."""
    at_end = self._step == self._experiment.num_steps
    return at_end or (every > 0 and self._step % every == 0)

  def _elapsed_s(self) -> float:
    """Seconds of the run so far, those of earlier processes up to their last save."""
    return time.perf_counter() - self._start

  # Logs and results

  def _log(self, scalars: Scalars, line: progress.Progress | None = None) -> None:
    """Writes scalars of this step, and looks for collapse in them."""
    if not processes.is_first():
      return
    self._excuse(lambda: self._writer.write(self._step, scalars))
    news = self._collapse.look(scalars)
    if news:
      logging.warning('step %d: %s', self._step, news)
    if line:
      line.warning = self._collapse.warning

  def _evaluate(self, line: progress.Progress | None = None) -> dict[str, float]:
    scalars = _to_floats(self._experiment.evaluate(self._step, self._rng))
    self._log(scalars, line)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in scalars.items())
    if shown and processes.is_first():
      tqdm.tqdm.write(f'step {self._step}: {shown}')
    return scalars

  def _report(self) -> None:
    scalars = self._evaluate()
    directory = self._path / 'figures'
    if not processes.is_first():
      with tempfile.TemporaryDirectory() as unwanted:
        self._experiment.report(self._step, pathlib.Path(unwanted))
      return
    directory.mkdir(exist_ok=True)
    results = self._experiment.report(self._step, directory)
    rows = writers.read(self._path)
    curves.plot(rows, directory / 'curves.png')
    curves.plot_approximations(rows, directory)
    speeds = [row['images_per_second'] for row in rows if 'images_per_second' in row]
    run = {
      'steps': self._step,
      'wall_time_s': self._elapsed_s(),
      'images_per_second': statistics.median(speeds),
    }
    workdir.write_results(self._path, {**scalars, **results, **run})
    print(f'results.json and figures/ are in {self._path}')

  # Checkpoints

  def _wait_for_state(self) -> None:
    """Waits for what makes the initial state; see `processes`."""
    jax.block_until_ready(
      [getattr(self._experiment, x) for x in self._experiment.CHECKPOINT_ATTRS]
    )

  def _arrays(self) -> dict[str, Any]:
    return {
      name: parallel.first(getattr(self._experiment, attribute))
      for attribute, name in self._experiment.CHECKPOINT_ATTRS.items()
    }

  def _save(self) -> None:
    """Saves in the background, but nothing that is not finite."""
    self._in_flight.finish()
    names = self._experiment.CHECKPOINT_ATTRS
    state = {name: getattr(self._experiment, x) for x, name in names.items()}
    health.check_arrays(self._step, parallel.on_first_device(state))
    if not processes.is_first():
      return
    arrays = self._arrays()
    host = {
      name: getattr(self._experiment, attribute)
      for attribute, name in self._experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items()
    }
    host['elapsed_s'] = self._elapsed_s()
    # A save before this one may turn out to have failed; this one is made all the same.
    self._excuse(self._checkpointer.wait)
    self._checkpointer.save(checkpoint.Checkpoint(self._step, arrays, host))

  def _restore(self) -> int:
    """Goes on from the latest checkpoint; returns its step, 0 if there is none."""
    like = self._arrays()
    latest = processes.first_does(lambda: self._checkpointer.restore_latest(like))
    rest = latest and {'step': latest.step, 'host': latest.host}
    rest = json.loads(processes.from_first(json.dumps(rest).encode()))
    if rest is None:
      return 0
    arrays = processes.arrays_from_first(latest and latest.arrays, like)
    for attribute, name in self._experiment.CHECKPOINT_ATTRS.items():
      setattr(self._experiment, attribute, parallel.replicate(arrays[name]))
    for attribute, name in self._experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items():
      setattr(self._experiment, attribute, rest['host'][name])
    self._start -= rest['host']['elapsed_s']
    print(f'going on from the checkpoint of step {rest["step"]}')
    return rest['step']


def _keep_compilations(path: pathlib.Path) -> None:
  """Keeps what XLA compiles in the working directory, unless told where to."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', str(path / 'compilation_cache'))


def _to_floats(scalars: Scalars) -> dict[str, float]:
  return {name: float(value) for name, value in scalars.items()}
