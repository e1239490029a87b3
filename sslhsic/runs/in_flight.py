"""Steps that the devices may still be at, each looked at when it is done."""

import collections

import jax

from sslhsic.runs import health
from sslhsic.runs.experiment import Scalars

# More would only hold more batches on the devices.
_MOST = 2


class InFlight:
  """A short queue of steps, so that nothing waits for the devices but its end."""

  def __init__(self):
    self._steps = collections.deque()

  def add(self, step: int, scalars: Scalars) -> None:
    """Adds a step; waits for one, if there are many.

    Args:
      step: number of updates with this one.
      scalars: of the step, on their way.

    Raises:
      NotFiniteError: one that is done, a few steps before, is not finite.
    """
    health.prefetch(scalars)
    self._steps.append((step, scalars))
    if len(self._steps) > _MOST:
      self._finish_one()

  def finish(self) -> None:
    """Waits for all.

    Raises:
      NotFiniteError: one is not finite.
    """
    while self._steps:
      self._finish_one()

  def _finish_one(self) -> None:
    step, scalars = self._steps.popleft()
    jax.block_until_ready(scalars)
    health.check_scalars(step, scalars)
