"""What a loss is: the contract, and what most of them have in common."""

from typing import ClassVar

import chex

from sslhsic import kernels
from sslhsic.losses.projections import Projections


class Loss:
  """An objective of the global batch.

  It is the same number, and gives the same parameter gradient, on one device with B
  images as on n devices with B/n each (averaged over them).

  Attributes:
    unit_norm: whether it takes features of unit norm, or as the network gives them.
    needs_target: whether it is nothing without a target network.
  """

  unit_norm: ClassVar[bool] = True
  needs_target: ClassVar[bool] = False

  def init(self, rng: chex.PRNGKey) -> chex.ArrayTree:
    """What the loss learns, at the start; mostly nothing."""
    del rng
    return ()

  def kernel_of(self, params: chex.ArrayTree) -> kernels.Kernel:
    """The kernel in which `evaluation.dependence` looks at this loss's features."""
    del params
    return kernels.Linear()

  def __call__(
    self,
    params: chex.ArrayTree,
    rng: chex.PRNGKey,
    projections: Projections,
    axis_name: str | None = None,
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch.

    Args:
      params: what the loss has learnt.
      rng: a JAX key, the same on every device.
      projections: features of this device's images, [2, b, d] each.
      axis_name: the mapped axis over which the batch is spread, if it is.

    Returns:
      The loss, a float32 scalar, and its terms; the same on every device.

    Raises:
      AssertionError: the features have other shapes.
      ValueError: there is no target network, and `needs_target`.
    """
    raise NotImplementedError
