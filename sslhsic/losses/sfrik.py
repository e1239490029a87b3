"""The loss of SFRIK (Zheng et al., 2023): MMD to the uniform law on the sphere."""

import dataclasses

import chex
import jax.numpy as jnp

from sslhsic import collectives, hsic
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


@dataclasses.dataclass(frozen=True)
class SFRIK(loss_lib.Loss):
  """λ·E‖x − y‖² + MMD², in a truncated rotation-invariant kernel.

  x and y are features of two views of an image. MMD² is the squared maximum mean
  discrepancy between the features of a view and the uniform law on the sphere, the mean
  over views, in the kernel

    k(x, y) = Σ_ℓ b_ℓ·P_ℓ(⟨x, y⟩),   ℓ = 1, …, L

  with P_ℓ the Legendre polynomials in dimension d, P_ℓ(1) = 1. Their mean under the
  uniform law is zero, so that MMD² is the mean of k over all pairs of features, a
  feature with itself included (https://arxiv.org/abs/2208.00789). A block of pairs is
  computed at a time: memory is linear in the batch, work quadratic. With a target
  network, x is a prediction, y the target's projection of another view, and MMD² is of
  the predictions.

  Attributes:
    alignment_weight: λ. The published code takes the mean over the d dimensions in
      place of the norm, so that its weight is λ·d: 4,000 at d = 8,192 is 0.49 here, and
      40,000 at d = 32,768 is 1.22, both for batches of 2,048. Smaller ones need more.
    kernel_weights: b_1, …, b_L.

  Raises:
    ValueError: a weight is negative, or there is none.
  """

  alignment_weight: float = 5.0
  kernel_weights: tuple[float, ...] = (1.0, 40.0, 40.0)

  def __post_init__(self):
    if not self.kernel_weights or min(self.kernel_weights) < 0:
      raise ValueError(
        f'sfrik has kernel_weights = {self.kernel_weights}; use one or more numbers, '
        'none of them negative'
      )

  def __call__(
    self,
    params: tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
    state: chex.ArrayTree = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`."""
    del params, rng, state
    projections_lib.check(projections)
    distances = jnp.stack([jnp.sum((x - y) ** 2, axis=1) for x, y in projections.pairs])
    online = projections.online.astype(jnp.float32)
    everything = collectives.gather_images(online, axis_name)
    # [V, b]: each device compares its own features with all features of the view.
    rows = jnp.stack(
      [self._mean_kernel(*view) for view in zip(online, everything, strict=True)]
    )
    metrics = {
      'alignment': collectives.global_mean(distances, axis_name),
      'mmd': collectives.global_mean(rows, axis_name),
    }
    loss = self.alignment_weight * metrics['alignment'] + metrics['mmd']
    return loss, {'loss': loss, **metrics}

  def _mean_kernel(self, x: chex.Array, y: chex.Array) -> chex.Array:
    """Mean of k(xᵢ, y) over the rows of y [B, d], for all i: [b]."""

    def of_row(row):
      return self._kernel(jnp.matmul(y, row, precision='highest'), y.shape[1]).mean()

    return hsic.map_in_blocks(of_row, x, len(y))

  def _kernel(self, t: chex.Array, dim: int) -> chex.Array:
    """k of unit-norm features with inner products t, in dimension d."""
    total = jnp.zeros_like(t)
    before, polynomial = jnp.ones_like(t), t
    for degree, weight in enumerate(self.kernel_weights, 1):
      total += weight * polynomial
      if dim == 1:  # {−1, 1} has no polynomial that is orthogonal to 1 and t.
        break
      # (ℓ + d − 2)·P_{ℓ+1} = (2ℓ + d − 2)·t·P_ℓ − ℓ·P_{ℓ−1}
      following = (2 * degree + dim - 2) * t * polynomial - degree * before
      before, polynomial = polynomial, following / (degree + dim - 2)
    return total
