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

  def init(self, rng: chex.PRNGKey, dim: int) -> chex.ArrayTree:
    """Initial parameters of the loss, often empty.

    Args:
      rng: a JAX key.
      dim: d, dimension of the features.
    """
    del rng, dim
    return ()

  def init_state(self, rng: chex.PRNGKey, dim: int) -> chex.ArrayTree:
    """Initial state that has no gradient, often empty; arguments as for `init`."""
    del rng, dim
    return ()

  def next_state(
    self, state: chex.ArrayTree, projections: Projections, axis_name: str | None = None
  ) -> chex.ArrayTree:
    """State after a batch.

    Args:
      state: before it.
      projections: features of this device's images, as `__call__` has seen them.
      axis_name: the mapped axis over which the batch is spread, if it is.

    Returns:
      The state, the same on every device.
    """
    del projections, axis_name
    return state

  def check_batch(self, *, local_batch: int, batch_size: int, num_targets: int) -> None:
    """Checks, before a training, that the loss takes its batches.

    Args:
      local_batch: b, images on each device.
      batch_size: B, images over all devices.
      num_targets: G, views of the target network; 0 without one.

    Raises:
      ValueError: it does not.
    """

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
    state: chex.ArrayTree = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch.

    Args:
      params: parameters of the loss.
      rng: a JAX key, the same on every device.
      projections: features of this device's images.
      axis_name: the mapped axis over which the batch is spread, if it is.
      state: state of the loss, for losses that have one.

    Returns:
      The loss, a float32 scalar, and its terms; the same on every device.

    Raises:
      AssertionError: the features have other shapes.
      ValueError: there is no target network, and `needs_target`.
    """
    raise NotImplementedError
