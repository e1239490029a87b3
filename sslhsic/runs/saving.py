"""What of an experiment is saved, when, and what is done if that fails."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import chex
import jax
import ml_collections
import numpy as np
from absl import logging

from sslhsic import parallel, storage
from sslhsic.runs import checkpoint, health, parts, processes
from sslhsic.runs.experiment import Experiment, TrainingError


class Saver:
  """Saves the state after whole steps, and restores it.

  Each of several processes has one; the first alone reads and writes.

  Args:
    experiment: what to save.
    directory: of the checkpoints.
    config: `config.runner`.
    start: when this process began with the run, by `time.perf_counter`.
    before_commit: see `checkpoint.Checkpointer`.

  Raises:
    ValueError: the directory or a setting cannot be used.
    OSError: the directory cannot be made.
    OtherProcessError: one of these, of the first process; in the others.

  Attributes:
    must_stop: whether a save has failed, after which the run is to end.
  """

  def __init__(
    self,
    experiment: Experiment,
    directory: storage.Path,
    config: ml_collections.ConfigDict,
    start: float,
    before_commit: Callable[[], None],
  ):
    self._experiment = experiment
    self._directory = directory
    self._on_save_error = config.get('on_save_error', 'stop')
    self._minutes = config.get('checkpoint_minutes')
    if self._on_save_error not in ('stop', 'continue'):
      raise ValueError(
        f'config.runner.on_save_error is {self._on_save_error!r}, expected stop or '
        'continue'
      )
    self._checkpointer = processes.first_does(
      lambda: checkpoint.Checkpointer(
        directory, keep=config.keep_checkpoints, before_commit=before_commit
      )
    )
    self._trouble = ''
    self.must_stop = False
    self._start, self._saved_at = start, time.perf_counter()

  @property
  def elapsed_s(self) -> float:
    """Seconds of the run so far, those of earlier processes up to their last save."""
    return time.perf_counter() - self._start

  # Whole steps

  def note(self, step: int) -> None:
    """Remembers what a whole step has left, to know it again if the next one fails.

    The host's values are copied: an input is ahead of its step while that is taken.

    Args:
      step: number of updates made.
    """
    experiment = self._experiment
    self._step = step
    self._left = self._state()
    self._host = copy.deepcopy(
      {
        name: getattr(experiment, attribute)
        for attribute, name in experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items()
      }
    )

  def _state(self) -> list[Any]:
    return [getattr(self._experiment, x) for x in self._experiment.CHECKPOINT_ATTRS]

  def _arrays(self) -> dict[str, Any]:
    names = self._experiment.CHECKPOINT_ATTRS.values()
    return dict(zip(names, map(parallel.first, self._state()), strict=True))

  # Saving

  def is_time(self) -> bool:
    """Whether the last save is `checkpoint_minutes` ago; to the first process only."""
    if not self._minutes or not processes.is_first():
      return False
    return time.perf_counter() - self._saved_at >= 60 * self._minutes

  def save(self) -> None:
    """Saves the last whole step in the background, but nothing that is not finite.

    Raises:
      NotFiniteError: it is not.
    """
    names = self._experiment.CHECKPOINT_ATTRS.values()
    state = dict(zip(names, self._state(), strict=True))
    # In every process: the state is the same, so that all fail together.
    health.check_arrays(self._step, parallel.on_first_device(state))
    if not processes.is_first():
      return
    arrays = self._arrays()
    host = self._host | {'elapsed_s': self.elapsed_s}
    # A save before this one may turn out to have failed; this one is made all the same.
    self.excuse(self._checkpointer.wait)
    made = checkpoint.Checkpoint(self._step, arrays, host)
    # It looks at what is there, which a bucket may not tell.
    self.excuse(lambda: self._checkpointer.save(made))
    self._saved_at = time.perf_counter()

  def rescue(self) -> None:
    """Saves the last whole step after an error, if it has left the state alone.

    Before the first step there is nothing to save: the same command makes it again.
    """
    # A step replaces the attributes: the same objects show that none is half done.
    is_whole = all(x is y for x, y in zip(self._state(), self._left, strict=True))
    if not processes.is_first() or not is_whole or not self._step:
      return
    try:
      self.save()
      self._checkpointer.wait()
    except Exception as error:  # That of the run is the one to be told.
      logging.warning(
        'step %d could not be saved: %s', self._step, parts.describe(error)
      )

  def check(self) -> None:
    """Looks whether a save in the background has failed."""
    if processes.is_first():
      self.excuse(self._checkpointer.check)

  def excuse(self, action: Callable[[], None]) -> None:
    """Does what a full disk may prevent; if it does, stops or continues, as set."""
    try:
      action()
    except (checkpoint.SaveError, OSError) as error:
      self._note_trouble(error)

  def _note_trouble(self, error: Exception) -> None:
    if self._on_save_error == 'stop':
      self.must_stop = True
    elif str(error) != self._trouble:
      logging.warning('%s; %s', error, self.last_good())
    self._trouble = str(error)

  def finish(self, *, is_stopped: bool) -> None:
    """Waits until all is saved, in the first process.

    Args:
      is_stopped: whether the training ends early, to resume from what is saved.

    Raises:
      TrainingError: it cannot be saved.
    """
    try:
      self._checkpointer.wait()
    except checkpoint.SaveError as error:
      self._note_trouble(error)
      if is_stopped:  # Whatever is set: there is nothing to resume from.
        self.must_stop = True
    if self.must_stop:
      raise TrainingError(f'{self._trouble}; {self.last_good()}')

  def last_good(self) -> str:
    """Which checkpoint of the first process is the last one, in words."""
    return self._checkpointer.last_good()

  def close(self) -> None:
    """Waits until everything is on disk; a failure is only logged."""
    if self._checkpointer:
      self._checkpointer.close()

  # Restoring

  def restore(self) -> int:
    """Takes the experiment to its latest checkpoint; returns the step, or 0.

    Raises:
      ValueError: no checkpoint is good, or the latest is of something else.
      OtherProcessError: that happened to the first process; in the others.
    """
    latest = lambda like: self._checkpointer.restore_latest(like)
    found = restore(self._experiment, latest, self._directory)
    if found is None:
      return 0
    step, host = found
    # Moves the start back by the time of earlier processes, for `elapsed_s`.
    self._start -= host['elapsed_s']
    print(f'resuming from the checkpoint of step {step}')
    return step


def restore(
  experiment: Experiment,
  read: Callable[[chex.ArrayTree], checkpoint.Checkpoint | None],
  directory: storage.Path,
) -> tuple[int, dict[str, Any]] | None:
  """Takes an experiment to a checkpoint that the first process reads.

  Args:
    experiment: what is restored, in every process.
    read: gives the checkpoint, if there is one; called in the first process with a tree
      of the shapes and types of its arrays.
    directory: where it is from, for messages.

  Returns:
    The step and the host's values; None without a checkpoint.

  Raises:
    ValueError: it is one of something else; or what `read` raises.
    OtherProcessError: that happened to the first process; in the others.
  """
  like = _blank_arrays(experiment)
  found = processes.first_does(lambda: read(like))
  # Step and host values travel as JSON, arrays as bytes; None without a checkpoint.
  rest = found and {'step': found.step, 'host': found.host}
  rest = json.loads(processes.from_first(json.dumps(rest).encode()))
  if rest is None:
    return None
  step, host = rest['step'], rest['host']
  _check_host(experiment, step, host, directory)
  arrays = processes.arrays_from_first(found and found.arrays, like)
  for attribute, name in experiment.CHECKPOINT_ATTRS.items():
    setattr(experiment, attribute, parallel.replicate(arrays[name]))
  for attribute, name in experiment.NON_BROADCAST_CHECKPOINT_ATTRS.items():
    setattr(experiment, attribute, host[name])
  return step, host


def _blank_arrays(experiment: Experiment) -> dict[str, Any]:
  """Zeros of the shapes and types of what is saved, which take no memory."""
  # The leading axis has the devices.
  blank = lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape[1:])
  return {
    name: jax.tree.map(blank, getattr(experiment, attribute))
    for attribute, name in experiment.CHECKPOINT_ATTRS.items()
  }


def _check_host(
  experiment: Experiment, step: int, host: dict[str, Any], directory: storage.Path
) -> None:
  wanted = set(experiment.NON_BROADCAST_CHECKPOINT_ATTRS.values())
  missing = sorted(wanted - host.keys())
  if missing:
    raise ValueError(
      f'the checkpoint of step {step} in {directory} has no {", ".join(missing)}: '
      'another version of the program has written it; resume with that one, or begin '
      'anew in another --workdir'
    )
