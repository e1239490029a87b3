"""Steps that the devices may still be at, each looked at when it is done."""

import collections

import chex
import jax

from sslhsic.training import health, stopping
from sslhsic.training.experiment import Scalars

# More would only hold more batches on the devices.
_MOST = 2


class InFlight:
  """A short queue of steps, so that nothing waits for the devices but its end.

  Attributes:
    asked: what processes want, by the steps that are done; see `stopping`.
  """

  def __init__(self):
    self.asked = stopping.NO
    self._steps = collections.deque()

  def add(self, step: int, scalars: Scalars, asked: int | chex.Array) -> None:
    """Adds a step; waits for one, if there are many.

    Args:
      step: number of updates with this one.
      scalars: of the step, on their way.
      asked: what processes want; known now, or on its way too.

    Raises:
      NotFiniteError: one that is done, a few steps before, is not finite.
    """
    if isinstance(asked, int):
      self.asked = max(self.asked, asked)
    self._steps.append((step, scalars, asked))
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
    step, scalars, asked = self._steps.popleft()
    jax.block_until_ready((scalars, asked))
    health.check_scalars(step, scalars)
    self.asked = max(self.asked, int(asked))
