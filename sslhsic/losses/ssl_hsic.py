"""The SSL-HSIC loss (Li et al., 2021) with a learned kernel scale."""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic import fourier, hsic, kernels
from sslhsic.losses import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib

# Features drawn, twice, to learn the kernel scale from all pairs of the two draws.
_NUM_ROWS = 256


class Params(NamedTuple):
  """What the loss learns: the kernel scale c, a float32 scalar."""

  kernel_scale: chex.Array


KERNELS = {
  'inverse_multiquadric': kernels.InverseMultiquadric,
  'gaussian': kernels.Gaussian,
  'linear': kernels.Linear,
}
REGULARIZERS = {
  # The floor keeps the gradient of the root finite when all features are equal.
  'root_hsic_zz': lambda terms: jnp.sqrt(jnp.maximum(terms['hsic_zz'], 1e-14)),
  'hsic_zz': lambda terms: terms['hsic_zz'],
  'kernel_variance': lambda terms: terms['kernel_variance'] / 2,
  'none': lambda terms: 0.0,
}
SAMPLERS = (*fourier.SAMPLERS, 'exact')


@dataclasses.dataclass(frozen=True)
class SSLHSIC(loss_lib.Loss):
  """−HSIC(Z,Y) + γ·√HSIC(Z,Z), as published in the inverse multiquadric kernel.

  HSIC is estimated from random Fourier features: one draw for HSIC(Z,Y), that one
  and an independent second for HSIC(Z,Z), shared by all views and all devices.

  The kernel scale does not see this loss. It has an objective of its own, to
  maximise the mean of log|∂k/∂s| over pairs of features, s = ‖x−y‖²: the kernel is
  to be steep where the features are.

  Attributes:
    gamma: γ, weight of the regulariser.
    num_features: D, number of random Fourier features.
    sampler: how they are drawn, see `fourier.draw`; or 'exact', without any, from all
      pairs of features: what the others estimate, at a cost quadratic in the batch.
    initial_scale: c at the start.
    kernel: 'inverse_multiquadric', 'gaussian', or 'linear', which has neither scale
      nor random features: its HSIC is exact.
    regularizer: what γ weighs: 'root_hsic_zz', √HSIC(Z,Z); 'hsic_zz', HSIC(Z,Z);
      'kernel_variance', ½·E_z Var_z' k, which InfoNCE implies; or 'none'.

  Raises:
    ValueError: when made with settings that there are not.
  """

  gamma: float = 3.0
  num_features: int = 512
  sampler: str = 'stratified'
  initial_scale: float = 1.0
  kernel: str = 'inverse_multiquadric'
  regularizer: str = 'root_hsic_zz'

  def __post_init__(self):
    for value, known in (
      (self.kernel, KERNELS),
      (self.regularizer, REGULARIZERS),
      (self.sampler, SAMPLERS),
    ):
      if value not in known:
        raise ValueError(f'ssl_hsic has no {value!r}; use one of {", ".join(known)}')
    if self.sampler != 'exact':
      fourier.check(self.num_features, self.sampler)

  def init(self, rng: chex.PRNGKey) -> Params | tuple[()]:
    """The initial kernel scale; nothing for the linear kernel."""
    del rng  # Nothing is random.
    if self.kernel == 'linear':
      return ()
    return Params(kernel_scale=jnp.float32(self.initial_scale))

  def kernel_of(self, params: Params | tuple[()]) -> kernels.Kernel:
    """The kernel at its learned scale."""
    return KERNELS[self.kernel](*params)

  def __call__(
    self,
    params: Params | tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`.

    Its gradient by `params` is that of the kernel scale's own objective.
    """
    projections_lib.check(projections)
    views = projections.views
    rng_a, rng_b, rng_rows = jax.random.split(rng, 3)
    kernel = self.kernel_of(jax.lax.stop_gradient(params))
    terms = self._terms(kernel, (rng_a, rng_b), views, axis_name)
    loss = self.gamma * REGULARIZERS[self.regularizer](terms) - terms['hsic_zy']
    metrics = {'loss': loss, **terms}
    if self.kernel == 'linear':
      return loss, metrics
    log_slope = mean_log_slope(self.kernel_of(params), rng_rows, views, axis_name)
    metrics |= {'kernel_scale': params.kernel_scale, 'kernel_log_slope': log_slope}
    # The scale's objective adds its gradient to the loss, not its value.
    return loss + (jax.lax.stop_gradient(log_slope) - log_slope), metrics

  def _terms(self, kernel, rngs, views, axis_name) -> dict[str, chex.Array]:
    """What the loss is made of, exact or estimated from two draws of features."""
    with_variance = self.regularizer == 'kernel_variance'
    if self.sampler == 'exact':
      terms = {
        'hsic_zy': hsic.exact_hsic_zy(views, kernel, axis_name),
        'hsic_zz': hsic.exact_hsic_zz(views, kernel, axis_name),
      }
      if with_variance:
        terms['kernel_variance'] = hsic.exact_kernel_variance(views, kernel, axis_name)
      return terms
    draw = functools.partial(
      fourier.draw,
      kernel,
      dim=views.shape[-1],
      num_features=self.num_features,
      sampler=self.sampler,
    )
    phi_a, phi_b = (draw(rng=rng)(views) for rng in rngs)
    terms = {
      'hsic_zy': hsic.hsic_zy(phi_a, axis_name),
      'hsic_zz': hsic.hsic_zz(phi_a, phi_b, axis_name),
    }
    if with_variance:
      terms['kernel_variance'] = hsic.kernel_variance(phi_a, phi_b, axis_name)
    return terms


def mean_log_slope(
  kernel: kernels.Gaussian | kernels.InverseMultiquadric,
  rng: chex.PRNGKey,
  views: chex.Array,
  axis_name: str | None = None,
) -> chex.Array:
  """Mean of log|∂k/∂s| over pairs of features, s = ‖x−y‖² held fixed.

  Pairs are those of 256 features with 256 others, drawn from the global batch with
  replacement, the same on every device. (The published code draws 1024 and 1024 on
  every device, which there is a large part of the loss's work.)

  Args:
    kernel: the kernel, whose scale gets the gradient.
    rng: a JAX key, the same on every device.
    views: [M, b, d] features of this device's images.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    A scalar, float32, the same on every device.
  """
  views = jax.lax.stop_gradient(views)
  x, y = jnp.split(_draw_rows(rng, 2 * _NUM_ROWS, views, axis_name), 2)
  return kernel.log_slope(kernels.squared_distances(x, y)).mean()


def _draw_rows(
  rng: chex.PRNGKey, count: int, views: chex.Array, axis_name: str | None
) -> chex.Array:
  """Draws features of the global batch, [count, d], the same on every device."""
  num_views, local_batch, _ = views.shape
  batch_size = collectives.global_batch_size(local_batch, axis_name)
  image_rng, view_rng = jax.random.split(rng)
  image = jax.random.randint(image_rng, [count], 0, batch_size)
  view = jax.random.randint(view_rng, [count], 0, num_views)
  if not axis_name:
    return views[view, image]
  # The device that has the image gives its row, the others add zeros.
  image = image - collectives.image_offset(local_batch, axis_name)
  is_here = (image >= 0) & (image < local_batch)
  rows = views[view, jnp.clip(image, 0, local_batch - 1)]
  return jax.lax.psum(jnp.where(is_here[:, None], rows, 0), axis_name)
