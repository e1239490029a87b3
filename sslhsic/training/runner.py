"""The loop around an experiment: flags, progress, logs, checkpoints, results."""

import collections
import pathlib
import statistics
import time
from typing import Any

import chex
import jax
import ml_collections
import tqdm
from absl import flags

from sslhsic import parallel
from sslhsic.data import errors
from sslhsic.training import (
  checkpoint,
  command_line,
  curves,
  progress,
  workdir,
  writers,
)
from sslhsic.training.experiment import Experiment, Scalars

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
  """Runs a program from its command line; see `command_line.main`.

  Besides mistakes in the command, a wrong configuration and data that cannot be used
  end it with one line.
  """

  def run(config, path):
    with command_line.one_line_errors(ValueError, OSError):
      runner = Runner(experiment_class, config, path, _MODE.value)
    with command_line.one_line_errors(errors.InputError):
      runner.run()

  command_line.main(run)


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
    if shown:
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
