"""The loop around an experiment: progress, logs, checkpoints, results, and faults."""

import contextlib
import itertools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from absl import flags, logging

from sslhsic import atomic, storage
from sslhsic.data import errors
from sslhsic.plots import curves
from sslhsic.runs import (
  checkpoint,
  checks,
  command_line,
  compilations,
  data_wait,
  following,
  health,
  in_flight,
  output,
  parts,
  paths,
  processes,
  profiling,
  progress,
  saving,
  stopping,
  trackers,
  workdir,
  writers,
)
from sslhsic.runs.experiment import Experiment, Scalars, TrainingError

_MODE = flags.DEFINE_enum(
  'mode',
  'train_and_eval',
  ['train', 'eval', 'train_and_eval'],
  'train: no evaluation; eval: evaluate the latest checkpoint and report, or in a '
  'directory without any, with experiments.pretrain, the encoder of config.init_from; '
  'train_and_eval: train, evaluate on the way, report at the end.',
)
_PROFILE = flags.DEFINE_string(
  'profile', None, 'START:STOP, the steps that WORKDIR/profile shows to TensorBoard.'
)
_FOLLOW = flags.DEFINE_string(
  'follow',
  None,
  'With --mode=eval: the working directory of a training, each of whose checkpoints is '
  'evaluated as it comes; the results go to --workdir.',
)


def main(experiment_class: type[Experiment]) -> None:
  """Runs a program from its command line; see `command_line.main`.

  Besides mistakes in the command, a wrong configuration, data that cannot be used and
  whatever ends a training early end it with one line.
  """

  def run(config, path):
    others = processes.OtherProcessError
    with command_line.one_line_errors(ValueError, OSError, others):
      follow = paths.parse(_FOLLOW.value, '--follow') if _FOLLOW.value else None
      runner = Runner(
        experiment_class, config, path, _MODE.value, _PROFILE.value, follow
      )
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
    follow: the working directory of a training whose checkpoints are evaluated, if not
      of the one in `path`. It is only read.

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
    path: storage.Path,
    mode: str,
    profile: str | None = None,
    follow: storage.Path | None = None,
  ):
    self._config = config.runner
    self._path = path
    self._mode = mode
    self._followed = follow
    checks.sizes(config)
    self._profile = profiling.Profile(path / 'profile', profile)
    if follow:
      if mode != 'eval':
        raise ValueError(f'--follow needs --mode=eval, and --mode is {mode}')
      processes.first_does(lambda: following.check(path, follow))

    def claim():
      free = getattr(experiment_class, 'FREE_FIELDS', ())
      if mode == 'eval' and not (follow or checkpoint.steps(path / 'checkpoints')):
        free = (*free, 'init_from')  # The encoder to evaluate may have moved.
      return workdir.claim(path, config, free)

    self._lock = processes.first_does(claim)
    # `_release` also runs where the build fails half-way.
    self._saver = self._writer = self._trackers = self._data_wait = None
    try:
      self._build(experiment_class, config)
    except BaseException:
      self._release()
      raise

  def _build(
    self, experiment_class: type[Experiment], config: ml_collections.ConfigDict
  ) -> None:
    """Makes the experiment, and takes it to where the run has come so far."""
    path, start = self._path, time.perf_counter()
    compilations.keep(path)
    if self._mode != 'train':
      processes.first_does(lambda: storage.make_directory(path / 'figures'))
    init_rng, rng = jax.random.split(jax.random.key(config.seed))
    # On the host, as `Experiment.step` asks; steps fold their number in on the device.
    self._rng = np.asarray(jax.random.key_data(rng))
    experiment_mode = 'eval' if self._mode == 'eval' else 'train'
    self._experiment = experiment_class(experiment_mode, init_rng, config)
    self._profile.check(self._experiment.num_steps)
    self._wait_for_state()
    if self._followed:
      free = (*getattr(experiment_class, 'FREE_FIELDS', ()), 'evaluators')
      self._saver = following.Follower(
        self._experiment,
        self._followed,
        lambda: workdir.check(self._followed, config, free),
        path,
      )
      self._step = self._saver.step
    else:
      self._saver = saving.Saver(
        self._experiment,
        path / 'checkpoints',
        config.runner,
        start,
        # What a run resumes from must not be ahead of its logs.
        before_commit=lambda: self._writer.upload(),
      )
      self._step = self._saver.restore()
      if not self._step:
        self._begin()
    # Only now: a configuration that cannot resume must not replace the earlier one.
    processes.first_does(lambda: workdir.write_config(path, config))
    names = config.runner.get('writers', trackers.OWN)
    self._writer = processes.first_does(
      lambda: writers.MetricWriter(path, self._step, names)
    )
    self._trackers = processes.first_does(
      lambda: trackers.Trackers(names, trackers.Run(path, self._step, config.to_dict()))
    )
    if self._mode != 'eval':  # An evaluation has no input, and saves nothing.
      self._saver.note(self._step)
    self._stop = stopping.StopRequest()
    self._in_flight = in_flight.InFlight()
    self._data_wait = data_wait.DataWait(self._experiment)
    collapse = self._config.get('collapse', {'minima': {}, 'patience': 1})
    self._collapse = health.CollapseWatch(collapse['minima'], collapse['patience'])
    self._is_stopped = False

  def _begin(self) -> None:
    """Starts without a checkpoint: a training, or an evaluation of a given encoder."""
    path = self._path

    def check():
      # Results of a given encoder must not pass for results of a training.
      if self._mode != 'eval' and storage.exists(path / 'results.json'):
        raise ValueError(
          f'{path} holds results and no checkpoint; use another --workdir, or remove '
          f'{path / "results.json"} to train here'
        )
      if self._mode == 'eval' and any(row['step'] for row in writers.read(path)):
        raise ValueError(
          f'{path} holds logs of a training and no checkpoint to evaluate; train '
          'there, or use another --workdir'
        )

    processes.first_does(check)
    begin = getattr(self._experiment, 'begin', lambda: False)
    if not begin() and self._mode == 'eval':
      raise ValueError(f'{path} holds no checkpoint to evaluate; train there first')

  def _wait_for_state(self) -> None:
    """Waits for what makes the initial state; see `processes`."""
    jax.block_until_ready(
      [getattr(self._experiment, x) for x in self._experiment.CHECKPOINT_ATTRS]
    )

  def run(self) -> None:
    """Trains, evaluates, or both, and reports; or stops early when asked by a signal.

    However it ends, what the last whole step has left is saved, if it is sound.

    Raises:
      TrainingError: the training cannot go on, or a part of the report has failed.
      OtherProcessError: it cannot in the first process; in the others.
    """
    try:
      with self._stop:
        if self._followed:
          self._follow()
        elif self._mode != 'eval':
          self._train()
        if self._mode != 'train' and not self._is_stopped:
          self._report()
      processes.wait_for_all()
    except health.NotFiniteError as error:
      raise self._not_finite(error) from error
    finally:
      self._profile.close()
      self._release()

  def _release(self) -> None:
    """Waits for what is being written, and lets go of the directory."""
    for held in (
      self._data_wait,
      self._writer,
      self._trackers,
      self._saver,
      self._lock,
    ):
      if not held:
        continue
      try:
        held.close()
      except OSError as error:  # A full disk must not keep the rest from closing.
        logging.warning('%s', parts.describe(error))

  # Training

  def _train(self) -> None:
    print(self._experiment.summary)
    print('compiling the first step', flush=True)
    with progress.Progress(self._experiment, self._step, self._data_wait) as line:
      try:
        self._take_steps(line)
      except health.NotFiniteError:
        # There is nothing to rescue: the state itself is bad.
        raise
      except BaseException as error:
        self._saver.rescue()
        self._say_what_is_saved(error)
        raise
      self._end_training()

  def _say_what_is_saved(self, error: BaseException) -> None:
    """Adds it to an error, or logs it if the error is not one that a line tells.

    Raises:
      TrainingError: the error with it.
    """
    if not processes.is_first():
      return
    saved = self._saver.last_good()
    if isinstance(error, errors.InputError | OSError | TrainingError):
      raise TrainingError(f'{error}; {saved}') from error
    logging.warning('ended by %s; %s', parts.describe(error), saved)

  def _take_steps(self, line: progress.Progress) -> None:
    while self._step < self._experiment.num_steps and not self._is_stopped:
      self._profile.before_step(self._step)
      scalars = self._data_wait.step(self._step, self._rng)
      self._step += 1
      self._saver.note(self._step)
      line.advance()
      # Steps run asynchronously: this waits for the one two before, and checks it.
      self._in_flight.add(self._step, scalars)
      if self._is_due(self._config.log_every) or self._step == 1:
        # Waits for this step, so that the speed is of finished work.
        scalars = _to_floats(scalars)
        self._log({**scalars, **line.log(scalars)}, line)
      self._between_steps(line)
      self._is_stopped = self._stop.is_reached(self._step) or self._has_failed()

  def _between_steps(self, line: progress.Progress) -> None:
    if self._profile.is_due(self._step):
      # The trace must include what the devices still compute.
      self._in_flight.finish()
      self._profile.close()
    is_last = self._step == self._experiment.num_steps
    evaluates = self._mode == 'train_and_eval' and not is_last  # The report does, then.
    evaluates = evaluates and self._is_due(self._config.evaluate_every)
    # An evaluation may fail, or take long.
    is_due = self._is_due(self._config.checkpoint_every) or self._saver.is_time()
    if is_due or evaluates:
      self._save()
      line.restart()
    else:
      self._saver.check()
    if evaluates:
      with contextlib.suppress(stopping.Stopped):
        self._evaluate_on_the_way(line)
      line.restart()

  def _evaluate_on_the_way(self, line: progress.Progress | None = None) -> None:
    try:
      self._evaluate(line)
    except Exception as error:
      if isinstance(error, BrokenPipeError) or jax.process_count() > 1:
        raise
      logging.debug('traceback', exc_info=True)
      remedy = 'or resume with config.runner.evaluate_every = 0'
      if self._followed:
        remedy = 'and the same command resumes'
      raise TrainingError(
        f'the evaluation after step {self._step} failed: {parts.describe(error)}; '
        f'correct it, {remedy}'
      ) from error

  def _end_training(self) -> None:
    """Waits until all is saved; says how the training has ended, if early."""
    if self._is_stopped:
      self._save()
    processes.first_does(lambda: self._saver.finish(is_stopped=self._is_stopped))
    if self._is_stopped:
      self._say_stopped(f'after step {self._step}, which is saved')

  def _say_stopped(self, when: str) -> None:
    name = self._stop.signal.name if self._stop.signal else 'a signal'
    with output.unread():  # The terminal may be gone.
      print(f'stopped by {name} {when}; the same command resumes', flush=True)

  def _save(self) -> None:
    self._in_flight.finish()
    self._saver.save()

  def _has_failed(self) -> bool:
    """Whether this process must stop on its own account; it takes the others along."""
    if self._saver.must_stop and jax.process_count() > 1:
      self._stop.ask_all()
      return False  # They stop together, a few steps later.
    return self._saver.must_stop

  def _not_finite(self, error: health.NotFiniteError) -> TrainingError:
    """What to tell of a step that is not finite; writes `bad_batch.json`."""
    message = str(error)
    if processes.is_first():
      message += f'; {self._saver.last_good()}'
      describe = getattr(self._experiment, 'describe_batch', None)
      if describe:
        path = self._path / 'bad_batch.json'
        # An update's batch has the number of the updates before it.
        batch = {'step': error.step, 'terms': error.terms, **describe(error.step - 1)}
        atomic.write(path, json.dumps(batch, indent=2) + '\n')
        message += f'; its batch is in {path}'
    return TrainingError(message)

  def _is_due(self, every: int) -> bool:
    """Whether something that happens `every` steps, and at the end, happens now."""
    at_end = self._step == self._experiment.num_steps
    return at_end or (every > 0 and self._step % every == 0)

  # Evaluation of a training that another job runs

  def _follow(self) -> None:
    """Evaluates checkpoints as they come, up to the last one, which has the report."""
    print(f'evaluating each checkpoint of {self._followed} as it comes', flush=True)
    rounds = itertools.count()
    while self._step < self._experiment.num_steps and not self._is_stopped:
      with contextlib.suppress(stopping.Stopped):
        self._evaluate_next()
      self._is_stopped = self._stop.is_reached(next(rounds))
    if self._is_stopped:
      self._say_stopped(f'while following {self._followed}')

  def _evaluate_next(self) -> None:
    """Evaluates the next checkpoint if there is one, else waits for a while."""
    with self._stop.at_once():
      try:
        step = self._saver.advance()
      except ValueError as error:
        raise TrainingError(str(error)) from error
      if step is None:
        following.wait()
        return
      self._step = step
      if step < self._experiment.num_steps:
        self._evaluate_on_the_way()

  # Logs and results

  def _log(self, scalars: Scalars, line: progress.Progress | None = None) -> None:
    """Writes scalars of this step, and looks for collapse in them."""
    if not processes.is_first():
      return
    self._saver.excuse(lambda: self._writer.write(self._step, scalars))
    self._trackers.write(self._step, scalars)
    news = self._collapse.look(scalars)
    if news:
      logging.warning('step %d: %s', self._step, news)
    if line:
      line.warning = self._collapse.warning

  def _evaluate(self, line: progress.Progress | None = None) -> dict[str, float]:
    with self._stop.at_once():
      scalars = _to_floats(self._experiment.evaluate(self._step, self._rng))
    self._log(scalars, line)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in scalars.items())
    if shown and processes.is_first():
      tqdm.tqdm.write(f'step {self._step}: {shown}')
    return scalars

  def _report(self) -> None:
    failed = {}
    try:
      with output.unread():  # Nothing is lost with what is printed.
        results = self._measure(failed)
    except stopping.Stopped:
      saved = ', which is saved' if self._step else ''
      self._say_stopped(f'during the report on step {self._step}{saved}')
      return
    if not processes.is_first():
      return
    failed |= results.pop('failed', {})
    if failed:
      results['failed'] = failed
    workdir.write_results(self._path, results)
    with output.unread():
      figures = sorted(file.name for file in (self._path / 'figures').iterdir())
      print(f'see {self._path / "results.json"} and, in figures/, {", ".join(figures)}')
    if failed:
      raise TrainingError(
        f'{self._path}: {parts.message(failed)}; --mode=eval tries again'
      )

  def _measure(self, failed: dict[str, str]) -> dict[str, Any]:
    """All results; the parts that fail are added to `failed`, with the reason."""
    results = {}
    with self._part('evaluation', failed):
      results |= self._evaluate()
    figures = contextlib.nullcontext(self._path / 'figures')
    if not processes.is_first():
      # All processes compute the report; only the figures of the first are kept.
      figures = _scratch()
    with figures as directory, self._part('report', failed):
      results |= self._experiment.report(self._step, directory)
    if not processes.is_first():
      return results
    with parts.part('logs', failed):
      self._writer.upload()
    rows = writers.read(self._path)
    with parts.part('curves', failed):
      curves.plot(rows, self._path / 'figures' / 'curves.png')
      curves.plot_approximations(rows, self._path / 'figures')
    speeds = [row['images_per_second'] for row in rows if 'images_per_second' in row]
    return results | {
      'steps': self._step,
      'wall_time_s': self._saver.elapsed_s,
      'images_per_second': statistics.median(speeds) if speeds else None,
    }

  @contextlib.contextmanager
  def _part(self, name: str, failed: dict[str, str]) -> Iterator[None]:
    """A part of the report, whose failure does not take the others along.

    Of several processes, one cannot go on alone: there it ends the run.
    """
    with self._stop.at_once():
      if jax.process_count() > 1:
        yield
        return
      with parts.part(name, failed):
        yield


@contextlib.contextmanager
def _scratch() -> Iterator[pathlib.Path]:
  """A directory that goes with the context."""
  with tempfile.TemporaryDirectory() as directory:
    yield pathlib.Path(directory)


def _to_floats(scalars: Scalars) -> dict[str, float]:
  # All at once: one after another they would each wait for the transfer.
  return {name: float(value) for name, value in jax.device_get(scalars).items()}
