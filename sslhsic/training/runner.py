"""The loop around an experiment: flags, progress, logs, checkpoints, results."""

import collections
import pathlib
import statistics
import sys
import time
from typing import Any

import chex
import jax
import ml_collections
import tqdm
from absl import app, flags, logging
from ml_collections import config_flags

from sslhsic import parallel
from sslhsic.data import errors
from sslhsic.training import checkpoint, curves, progress, workdir, writers
from sslhsic.training.experiment import Experiment, Scalars

_CONFIG = config_flags.DEFINE_config_file('config', help_string='The configuration.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run keeps its files.')
_MODE = flags.DEFINE_enum(
  'mode',
  'train_and_eval',
  ['train', 'eval', 'train_and_eval'],
  'train: no evaluation; eval: evaluate the latest checkpoint and report; '
  'train_and_eval: train, evaluate on the way, report at the end.',
)

# Steps that may be on the device at once; more would only hold more batches there.
_STEPS_IN_FLIGHT = 2


def main(experiment_class: type[Experiment]) -> None:
  """Runs a program from its command line.

  A mistake in the command or the configuration, and data that cannot be used, end it
  with one line that says so, and exit code 1; `--verbosity=1` adds the traceback.
  """

  def run(argv):
    if len(argv) > 1:
      _fail(f'unexpected arguments {argv[1:]}; every argument starts with --')
    config, path = _CONFIG.value, _WORKDIR.value
    if not isinstance(config, ml_collections.ConfigDict):
      _fail('no configuration: give --config=FILE.py, an existing file')
    if not path:
      _fail('no working directory: give --workdir=DIR')
    try:
      runner = Runner(experiment_class, config, pathlib.Path(path), _MODE.value)
    except (ValueError, OSError) as error:
      logging.debug('traceback', exc_info=True)
      _fail(str(error))
    try:
      runner.run()
    except errors.InputError as error:
      logging.debug('traceback', exc_info=True)
      _fail(str(error))

  app.run(run, flags_parser=_parse_flags)


def _parse_flags(argv):
  # Libraries tell more than a user wants to read, unless asked to.
  logging.set_verbosity(logging.WARNING)
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(str(error))
  except OSError:
    _fail('cannot read the configuration: give --config=FILE.py, an existing file')
  except (AttributeError, KeyError) as error:
    # The configuration's own message, which may have a second line with a guess.
    _fail('the configuration has no field ' + ' '.join(error.args[0].split()))


def _fail(message: str) -> None:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


class Runner:
  """One run of an experiment in its working directory.

  Raises, when constructed:
    ValueError: the configuration is wrong, or the directory holds a run of another.
    OSError: the directory cannot be written.
  """

  def __init__(
    self,
    experiment_class: type[Experiment],
    config: ml_collections.ConfigDict,
    path: pathlib.Path,
    mode: str,
  ):
    self._start = time.perf_counter()
    workdir.check(path, config)
    self._config = config.runner
    self._path = path
    self._mode = mode
    init_rng, self._rng = jax.random.split(jax.random.key(config.seed))
    experiment_mode = 'eval' if mode == 'eval' else 'train'
    self._experiment = experiment_class(experiment_mode, init_rng, config)
    self._checkpointer = checkpoint.Checkpointer(
      path / 'checkpoints', keep=self._config.keep_checkpoints
    )
    self._step = self._restore()
    if mode == 'eval' and not self._step:
      raise ValueError(f'{path} holds no checkpoint to evaluate; train there first')
    workdir.write_config(path, config)

  def run(self) -> None:
    """Trains, evaluates, or both, and reports."""
    writer = writers.MetricWriter(self._path, self._step)
    try:
      if self._mode != 'eval':
        self._train(writer)
      if self._mode != 'train':
        self._report(writer)
    finally:
      writer.close()
      self._checkpointer.close()

  def _train(self, writer: writers.MetricWriter) -> None:
    print(self._experiment.summary)
    in_flight = collections.deque()
    with progress.Progress(self._experiment, self._step) as line:
      while self._step < self._experiment.num_steps:
        scalars = self._experiment.step(self._step, self._step_rng())
        self._step += 1
        line.advance()
        in_flight.append(scalars)
        if len(in_flight) > _STEPS_IN_FLIGHT:
          jax.block_until_ready(in_flight.popleft())
        if self._is_due(self._config.log_every) or self._step == 1:
          scalars = _to_floats(scalars)
          writer.write(self._step, {**scalars, **line.log(scalars)})
        self._between_steps(writer, line)

  def _between_steps(
    self, writer: writers.MetricWriter, line: progress.Progress
  ) -> None:
    is_last = self._step == self._experiment.num_steps
    evaluates = self._mode == 'train_and_eval' and not is_last  # The report does, then.
    if evaluates and self._is_due(self._config.evaluate_every):
      self._evaluate(writer)
      line.restart()
    if self._is_due(self._config.checkpoint_every):
      self._save()
      line.restart()

  def _is_due(self, every: int) -> bool:
    """Whether something that happens `every` steps, and at the end, happens now."""
    at_end = self._step == self._experiment.num_steps
    return at_end or (every > 0 and self._step % every == 0)

  def _elapsed_s(self) -> float:
    """Seconds of the run so far, those of earlier processes up to their last save."""
    return time.perf_counter() - self._start

  def _step_rng(self) -> chex.PRNGKey:
    return jax.random.fold_in(self._rng, self._step)

  def _evaluate(self, writer: writers.MetricWriter) -> dict[str, float]:
    scalars = _to_floats(self._experiment.evaluate(self._step, self._step_rng()))
    writer.write(self._step, scalars)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in scalars.items())
    tqdm.tqdm.write(f'step {self._step}: {shown}')
    return scalars

  def _report(self, writer: writers.MetricWriter) -> None:
    scalars = self._evaluate(writer)
    directory = self._path / 'figures'
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

  def _arrays(self) -> dict[str, Any]:
    return {
      name: parallel.first(getattr(self._experiment, attribute))
      for attribute, name in self._experiment.CHECKPOINT_ATTRS.items()
    }

  def _save(self) -> None:
    host = {
      name: getattr(self._experiment, attribute)
      for attribute, name in self._experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items()
    }
    host['elapsed_s'] = self._elapsed_s()
    self._checkpointer.save(checkpoint.Checkpoint(self._step, self._arrays(), host))

  def _restore(self) -> int:
    """Goes on from the latest checkpoint; returns its step, 0 if there is none."""
    latest = self._checkpointer.restore_latest(self._arrays())
    if latest is None:
      return 0
    for attribute, name in self._experiment.CHECKPOINT_ATTRS.items():
      setattr(self._experiment, attribute, parallel.replicate(latest.arrays[name]))
    for attribute, name in self._experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items():
      setattr(self._experiment, attribute, latest.host[name])
    self._start -= latest.host['elapsed_s']
    print(f'going on from the checkpoint of step {latest.step}')
    return latest.step


def _to_floats(scalars: Scalars) -> dict[str, float]:
  return {name: float(value) for name, value in scalars.items()}
