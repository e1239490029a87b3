"""The loss of Barlow Twins (Zbontar et al., 2021)."""

import dataclasses
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib

# Under the root of each dimension's variance, as in the published code's batch norm.
_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class BarlowTwins(loss_lib.Loss):
  """Σⱼ (1 − Cⱼⱼ)² + λ·Σ_{j≠k} Cⱼₖ², C the cross-correlation of two views.

  Cⱼₖ = Σᵢ ẑᵢⱼ ẑ'ᵢₖ / B with every dimension of ẑ and ẑ' standardised over the global
  batch (https://arxiv.org/abs/2103.03230, equations 1 and 2). The features are not
  normalised before. The loss is the mean over all pairs of views. With a target
  network, z is a prediction of a view and z' the target's projection of another one.

  Attributes:
    redundancy_weight: λ, weight of the off-diagonal elements.
  """

  redundancy_weight: float = 5e-3

  unit_norm: ClassVar[bool] = False

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
    terms = [self._terms(x, y, axis_name) for x, y in projections.pairs]
    metrics = jax.tree.map(lambda *values: sum(values) / len(values), *terms)
    loss = metrics['invariance'] + self.redundancy_weight * metrics['redundancy']
    return loss, {'loss': loss, **metrics}

  def _terms(self, x, y, axis_name):
    x, y = _standardize(x, axis_name), _standardize(y, axis_name)
    correlation = jnp.matmul(x.T, y, precision='highest') / len(x)
    # Devices hold equally many images, so the mean of their means divides by B.
    correlation = collectives.mean_over_devices(correlation, axis_name)
    diagonal = jnp.diagonal(correlation)
    off_diagonal = correlation - jnp.diag(diagonal)
    return {
      'invariance': jnp.sum((1 - diagonal) ** 2),
      'redundancy': jnp.sum(off_diagonal**2),
    }


def _standardize(x: chex.Array, axis_name: str | None) -> chex.Array:
  """Every column of x [b, d] with mean 0 and variance 1 over the global batch."""
  mean = collectives.mean_over_devices(x.mean(axis=0, keepdims=True), axis_name)
  # Global mean first, then variance: E x² − (E x)² would lose digits to cancellation.
  centred = x - mean
  variance = jnp.mean(centred**2, axis=0, keepdims=True)
  variance = collectives.mean_over_devices(variance, axis_name)
  return centred * jax.lax.rsqrt(variance + _EPS)
