"""What waiting for data costs, with steps and batches that take known times."""

import time

import numpy as np
import pytest

from sslhsic.runs import data_wait


class Pending:
  """A scalar that is there some time after it was asked for."""

  def __init__(self, seconds):
    self._at = time.monotonic() + seconds

  def block_until_ready(self):
    time.sleep(max(0.0, self._at - time.monotonic()))
    return self


class Experiment:
  """Steps wait for a batch for some time, then the devices compute for some time."""

  data_wait_s = 0.0

  def __init__(self, waits, computes):
    self._times = list(zip(waits, computes, strict=True))

  def step(self, global_step, rng):
    wait, compute = self._times[global_step]
    start = time.perf_counter()
    time.sleep(wait)
    self.data_wait_s += time.perf_counter() - start
    return {'loss': Pending(compute)}


@pytest.mark.parametrize(
  ('waits', 'computes', 'pause', 'expected'),
  [
    ((0.2, 0.0), (0.0, 0.0), 0.0, 0.2),  # Before the first step nothing computes.
    ((0.0, 0.2), (0.6, 0.0), 0.0, 0.0),  # The batch is there before the step is done.
    ((0.0, 0.5), (0.2, 0.0), 0.0, 0.3),  # And after that.
    ((0.0, 0.2), (0.1, 0.0), 0.3, 0.2),  # What is done between steps is no waiting.
  ],
)
def test_only_idle_devices_wait(waits, computes, pause, expected):
  waited = data_wait.DataWait(Experiment(waits, computes))
  rng = np.zeros(2, np.uint32)
  waited.step(0, rng)
  time.sleep(pause)
  waited.step(1, rng)
  waited.close()
  assert waited.seconds == pytest.approx(expected, abs=0.1)
