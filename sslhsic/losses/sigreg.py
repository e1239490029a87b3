"""The loss of LeJEPA (Balestriero and LeCun, 2025), with its regulariser SIGReg."""

import dataclasses
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


@dataclasses.dataclass(frozen=True)
class SIGReg(loss_lib.Loss):
  """(1 − λ)·prediction + λ·SIGReg, of features that are to be isotropic Gaussian.

  Prediction is the mean of (z − c)² over views, images and dimensions, where z is the
  feature of a view and c the mean feature of the global views of its image. SIGReg is
  the mean over views of the Epps–Pulley statistic of the features [B, d] of a view,
  projected onto random unit directions a:

    B · E_a ∫ |φ̂(t) − exp(−t²/2)|² exp(−t²/2) dt,   φ̂(t) = Σᵢ exp(i·t·⟨a, zᵢ⟩) / B

  over [−t_max, t_max] by the trapezoid rule (https://arxiv.org/abs/2511.08544, with the
  mean over dimensions of its published code). The directions are drawn at each step,
  the same for all views and devices. Work and memory are linear in the batch. The
  features are not normalised before. With a target network, z is a prediction and c the
  mean of the target's projections.

  Attributes:
    weight: λ.
    num_slices: number of directions.
    num_knots: points of the trapezoid rule.
    t_max: end of the interval of integration.
    num_global_views: without a target network, how many views, the first ones, c is the
      mean of; with one, they are the target's.

  Raises:
    ValueError: a setting has a value that it cannot have.
  """

  weight: float = 0.05
  num_slices: int = 1024
  num_knots: int = 17
  t_max: float = 5.0
  num_global_views: int = 2

  unit_norm: ClassVar[bool] = False

  def __post_init__(self):
    if not 0 <= self.weight <= 1:
      raise ValueError(f'sigreg has weight = {self.weight}; use a number from 0 to 1')
    for name, smallest in (
      ('num_slices', 1),
      ('num_knots', 3),
      ('num_global_views', 1),
    ):
      if getattr(self, name) < smallest:
        raise ValueError(
          f'sigreg has {name} = {getattr(self, name)}; use {smallest} or more'
        )
    if not self.t_max > 0:
      raise ValueError(f'sigreg has t_max = {self.t_max}; use a positive number')

  def __call__(
    self,
    params: tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
    state: chex.ArrayTree = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`."""
    del params, state
    projections_lib.check(projections)
    online = projections.online.astype(jnp.float32)
    squared_errors = (online - self._centre(projections)) ** 2
    # One unit vector a column; the key is the same on every device.
    normal = jax.random.normal(rng, [self.num_slices, online.shape[-1]])
    slices = projections_lib.l2_normalize(normal).T
    metrics = {
      'prediction': collectives.global_mean(squared_errors, axis_name),
      'sigreg': self._statistic(online, slices, axis_name),
    }
    loss = (1 - self.weight) * metrics['prediction'] + self.weight * metrics['sigreg']
    return loss, {'loss': loss, **metrics}

  def _centre(self, projections: projections_lib.Projections) -> chex.Array:
    """c, the mean feature of the global views, [1, b, d]."""
    views = projections.target
    if views is None:
      views = projections.online[: self.num_global_views]
    if projections.target is None and len(views) < self.num_global_views:
      raise ValueError(
        f'sigreg has num_global_views = {self.num_global_views}, but images have '
        f'{len(views)} views; use {len(views)} or fewer'
      )
    return views.astype(jnp.float32).mean(axis=0, keepdims=True)

  def _statistic(
    self, online: chex.Array, slices: chex.Array, axis_name: str | None
  ) -> chex.Array:
    """Mean Epps–Pulley statistic of features [V, b, d] along directions [d, S]."""
    projected = jnp.matmul(online, slices, precision='highest')
    knots, weights = _quadrature(self.num_knots, self.t_max)

    @jax.checkpoint  # Keeps the projections, and not their cosines at every knot.
    def characteristic_function(t):
      angle = t * projected
      return jnp.cos(angle).mean(axis=1), jnp.sin(angle).mean(axis=1)

    # Real and imaginary part of φ̂ for each knot, view and direction: [K, V, S].
    parts = jax.lax.map(characteristic_function, knots)
    real, imaginary = collectives.mean_over_devices(parts, axis_name)
    gaussian = jnp.exp(-(knots**2) / 2)[:, None, None]
    squared_errors = (real - gaussian) ** 2 + imaginary**2
    integrals = jnp.sum(weights[:, None, None] * gaussian * squared_errors, axis=0)
    batch_size = collectives.global_batch_size(online.shape[1], axis_name)
    return batch_size * jnp.mean(integrals)


def _quadrature(num_knots: int, t_max: float) -> tuple[chex.Array, chex.Array]:
  """Positive knots of the trapezoid rule on [−t_max, t_max], and their weights.

  The integrand is even and 0 at t = 0, so that half of the knots say all.
  """
  knots = np.linspace(-t_max, t_max, num_knots, dtype=np.float32)
  knots = knots[(num_knots + 1) // 2 :]
  weights = np.full_like(knots, 2 * 2 * t_max / (num_knots - 1))
  weights[-1] /= 2  # The end of the interval.
  return jnp.asarray(knots), jnp.asarray(weights)
