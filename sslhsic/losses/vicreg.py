"""The loss of VICReg (Bardes et al., 2022)."""

import dataclasses
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


@dataclasses.dataclass(frozen=True)
class VICReg(loss_lib.Loss):
  """λ·s(Z, Z') + μ·[v(Z) + v(Z')] + ν·[c(Z) + c(Z')].

  Of features Z, Z' [B, d] of the two views (https://arxiv.org/abs/2105.04906):

    s = Σᵢ‖zᵢ − z'ᵢ‖² / (B·d)                     invariance; 1/d as in its Algorithm 1
    v = Σⱼ max(0, 1 − √(Var zⱼ + 1e-4)) / d       variance, of the dimensions j
    c = Σ_{j≠k} Cov(zⱼ, zₖ)² / d                  covariance

  Var and Cov divide by B − 1, so that one image alone raises an error. The features are
  not normalised before. With more views, s is the mean over all pairs of views, and
  v(Z) + v(Z') and c(Z) + c(Z') are twice the mean over views. With a target network, s
  compares predictions with the target's projections of another view, and v and c are of
  the predictions.

  Attributes:
    invariance_weight: λ, weight of the invariance s.
    variance_weight: μ, weight of the variance v.
    covariance_weight: ν, weight of the covariance c.
  """

  invariance_weight: float = 25.0
  variance_weight: float = 25.0
  covariance_weight: float = 1.0

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
    distances = jnp.stack([jnp.mean((x - y) ** 2) for x, y in projections.pairs])
    online = projections.online.astype(jnp.float32)
    spread = [_variance_and_covariance(z, axis_name) for z in online]
    metrics = {
      'invariance': collectives.global_mean(distances, axis_name),
      'variance': sum(variance for variance, _ in spread) * (2 / len(online)),
      'covariance': sum(covariance for _, covariance in spread) * (2 / len(online)),
    }
    loss = (
      self.invariance_weight * metrics['invariance']
      + self.variance_weight * metrics['variance']
      + self.covariance_weight * metrics['covariance']
    )
    return loss, {'loss': loss, **metrics}


def _variance_and_covariance(
  z: chex.Array, axis_name: str | None
) -> tuple[chex.Array, chex.Array]:
  """v and c of the features [b, d] of a view."""
  local_batch, dim = z.shape
  batch_size = collectives.global_batch_size(local_batch, axis_name)
  if batch_size < 2:
    raise ValueError('vicreg needs the variance over images: give it two or more')
  mean = collectives.mean_over_devices(z.mean(axis=0, keepdims=True), axis_name)
  centred = z - mean
  products = jnp.matmul(centred.T, centred, precision='highest') / local_batch
  covariance = collectives.mean_over_devices(products, axis_name)
  # The mean over devices divides by B, the covariance by B − 1.
  covariance = covariance * (batch_size / (batch_size - 1))
  variances = jnp.diagonal(covariance)
  off_diagonal = covariance - jnp.diag(variances)
  # 1e-4 keeps the gradient of the root finite where a dimension is constant.
  hinge = jax.nn.relu(1 - jnp.sqrt(variances + 1e-4))
  return jnp.mean(hinge), jnp.sum(off_diagonal**2) / dim
