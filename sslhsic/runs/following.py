"""The checkpoints of a training that another job runs, read as they come."""

import json
import time
from collections.abc import Callable

import chex
from absl import logging

from sslhsic import storage
from sslhsic.runs import checkpoint, processes, saving, writers
from sslhsic.runs.experiment import Experiment

_POLL_S = 10  # Little against the time between two checkpoints.


def check(path: storage.Path, followed: storage.Path) -> None:
  """Checks that evaluations of a training have a directory of their own.

  Args:
    path: where the evaluations go.
    followed: the working directory of the training.

  Raises:
    ValueError: it belongs to the training, or to another one.
  """
  if storage.resolved(path) == storage.resolved(followed):
    raise ValueError(
      f'--workdir and --follow are both {path}; give the evaluations a directory of '
      'their own'
    )
  if storage.exists(path / 'checkpoints'):
    raise ValueError(
      f'{path} holds checkpoints of a run; give the evaluations of {followed} a '
      '--workdir of their own'
    )


def wait() -> None:
  """Waits until it is time to look for checkpoints again."""
  time.sleep(_POLL_S)


class Follower:
  """Takes an experiment from one checkpoint of a training to the next.

  The directory of the training is only read, without its lock: checkpoints may vanish
  while they are read, and the training may stop and resume.

  Each of several processes has one; the first alone reads.

  Args:
    experiment: what is taken there.
    followed: the working directory of the training, which need not be there yet.
    check: raises a `ValueError` if the training is one of another configuration.
    path: where the evaluations are; those that are there are not made again.

  Attributes:
    step: of the last checkpoint that was evaluated or taken. It is always before the
      end of the training, until its last checkpoint is taken for the report.
    elapsed_s: seconds that the training had taken then.
  """

  def __init__(
    self,
    experiment: Experiment,
    followed: storage.Path,
    check: Callable[[], None],
    path: storage.Path,
  ):
    self._experiment, self._followed, self._check = experiment, followed, check
    rows = processes.first_does(lambda: writers.read(path))
    last = max((row['step'] for row in rows or ()), default=0)
    last = json.loads(processes.from_first(json.dumps(last).encode()))
    self.step = min(last, experiment.num_steps - 1)
    self.elapsed_s = 0.0
    self._failed, self._warned = set(), set()

  def advance(self) -> int | None:
    """Takes the experiment to the next checkpoint; returns its step, or None.

    Raises:
      ValueError: the training is another one, or its data are.
      OtherProcessError: that happened to the first process; in the others.
    """
    found = saving.restore(self._experiment, self._read_next, self._followed)
    if found is None:
      return None
    self.step, host = found
    self.elapsed_s = host['elapsed_s']
    return self.step

  def _read_next(self, like: chex.ArrayTree) -> checkpoint.Checkpoint | None:
    """The first one after `step` that can be read."""
    directory = self._followed / 'checkpoints'
    for step in checkpoint.steps(directory):
      if step <= self.step:
        continue
      self._check()
      try:
        return checkpoint.read(directory, step, like)
      except (ValueError, OSError) as error:
        # The training has removed it meanwhile.
        if step not in checkpoint.steps(directory):
          continue
        if not isinstance(error, checkpoint.DamagedError | OSError):
          raise
        self._note_failure(step, error)
    return None

  def _note_failure(self, step: int, error: Exception) -> None:
    """Warns once of a checkpoint that stays damaged; the next look tries it again."""
    # The first time it may be one that is being removed.
    if step in self._failed and step not in self._warned:
      logging.warning('%s is not evaluated: %s', self._followed, error)
      self._warned.add(step)
    self._failed.add(step)

  def excuse(self, action: Callable[[], None]) -> None:
    """Does what a full disk may prevent; its error ends the evaluations alone."""
    action()

  def close(self) -> None:
    """Has nothing to let go of."""
