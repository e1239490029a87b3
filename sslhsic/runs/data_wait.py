"""Time that the devices lose because a batch is late."""

import math
import time
from concurrent import futures

import jax
import numpy as np

from sslhsic.runs.experiment import Experiment, Scalars


class DataWait:
  """Takes the steps of an experiment, and measures what waiting for data costs.

  Steps run ahead of the devices: while these still compute the step before, waiting for
  a batch costs nothing. What counts is the time from when the devices have finished all
  steps, or the host has begun to wait if that is later, until the batch is there.

  Args:
    experiment: whose steps are taken. It waits for its batch at the start of a step.

  Attributes:
    seconds: for which the devices had nothing to do so far.
  """

  def __init__(self, experiment: Experiment):
    self._experiment = experiment
    self.seconds = 0.0
    # Only a thread that waits for a step knows when it was done.
    self._watcher = futures.ThreadPoolExecutor(1, 'data_wait')
    self._before: futures.Future | None = None

  def step(self, global_step: int, rng: np.ndarray) -> Scalars:
    """Takes a step; see `Experiment.step`."""
    began_s, waited_s = time.perf_counter(), self._experiment.data_wait_s
    scalars = self._experiment.step(global_step, rng)
    arrived_s = began_s + self._experiment.data_wait_s - waited_s
    self.seconds += max(0.0, arrived_s - max(began_s, self._idle_since_s()))
    self._before = self._watcher.submit(_ready_at_s, scalars)
    return scalars

  def _idle_since_s(self) -> float:
    """When the step before was done; -∞ before the first, ∞ while it runs."""
    if self._before is None:
      return -math.inf
    is_done = self._before.done() and not self._before.exception()
    return self._before.result() if is_done else math.inf

  def close(self) -> None:
    """Ends the thread once the devices are done."""
    self._watcher.shutdown(wait=False)


def _ready_at_s(scalars: Scalars) -> float:
  jax.block_until_ready(scalars)
  return time.perf_counter()
