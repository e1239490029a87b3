"""The SSL-HSIC loss (Li et al., 2021) with a learned kernel scale."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives, fourier, hsic, kernels, pairs
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib

# Features drawn, twice, to learn the kernel scale from all pairs of the two draws.
_NUM_ROWS = 256
# Keeps the gradient of the root finite when all features are equal.
_SMALLEST_HSIC_ZZ = 1e-14
_SMALLEST_SCALE = 1e-3


class Params(NamedTuple):
  """What the loss learns: the kernel scale c, a float32 scalar."""

  kernel_scale: chex.Array


KERNELS: dict[str, Callable[..., kernels.Kernel]] = {
  'inverse_multiquadric': kernels.InverseMultiquadric,
  'gaussian': kernels.Gaussian,
  'linear': kernels.Linear,
}
REGULARIZERS = {
  'root_hsic_zz': lambda terms: jnp.sqrt(jnp.maximum(terms.hsic_zz, _SMALLEST_HSIC_ZZ)),
  'hsic_zz': lambda terms: terms.hsic_zz,
  'kernel_variance': lambda terms: terms.kernel_variance / 2,
  'none': lambda terms: 0.0,
}
ESTIMATORS = ('pairs', 'exact', 'features')

# Settings of the estimators, with their defaults; of features, the published ones.
_ESTIMATOR_SETTINGS: dict[str, dict[str, Any]] = {
  'pairs': {'block_size': 8, 'covariance': False},
  'exact': {},
  'features': {'num_features': 512, 'sampler': 'iid', 'draw_per_device': False},
}


@dataclasses.dataclass(frozen=True)
class SSLHSIC(loss_lib.Loss):
  """−HSIC(Z,Y) + γ·√HSIC(Z,Z), as published in the inverse multiquadric kernel.

  Z are all M = V + G features of an image: V of the online network, G of the target
  network. Both terms are estimated from pairs of features (`pairs.estimate`): linear in
  the batch, without random numbers. `estimator` selects all pairs, or random Fourier
  features, instead.

  The kernel scale has its own objective, to maximise the mean of log|∂k/∂s| over pairs
  of features, s = ‖x−y‖²: the kernel is to be steep where the features are.

  Where the estimate of HSIC(Z,Z) is below 1e-14, its root is set to 1e-7 and has no
  gradient; the metric `hsic_zz_not_positive` is then 1, else 0.

  Attributes:
    gamma: γ, weight of the regulariser.
    estimator: 'pairs'; 'exact', from all pairs, at a cost quadratic in the batch; or
      'features', random Fourier features: one draw for HSIC(Z,Y), that draw and an
      independent second one for HSIC(Z,Z), shared by all views and all devices.
    block_size: T of `pairs.estimate`, for 'pairs' only; None: 8. The images of the
      batch on each device are a multiple of 2T, and in random order.
    covariance: whether the linear part of HSIC(Z,Z) is exact, see `pairs.estimate`,
      for 'pairs' only; None: False.
    num_features: D, number of random Fourier features, for 'features' only; None: 512.
    sampler: how they are drawn, see `fourier.draw`, for 'features' only; None: 'iid'.
    draw_per_device: whether each device has draws of its own, for 'features' only;
      None: False. As published, each then computes the loss of the whole batch, and the
      mean over the devices is the loss: it depends on their number.
    initial_scale: c at the start; a kernel has √(c² + 10⁻⁶), whatever c is learned.
    kernel: 'inverse_multiquadric', 'gaussian', or 'linear', which has no scale to learn
      and is its own feature map.
    regularizer: what γ weighs: 'root_hsic_zz', √HSIC(Z,Z); 'hsic_zz', HSIC(Z,Z);
      'kernel_variance', ½·E_z Var_z' k, which InfoNCE implies; or 'none'.

  Raises:
    ValueError: a setting has an unknown value, or the estimator does not have it.
  """

  gamma: float = 3.0
  estimator: str = 'pairs'
  block_size: int | None = None
  covariance: bool | None = None
  num_features: int | None = None
  sampler: str | None = None
  draw_per_device: bool | None = None
  initial_scale: float = 1.0
  kernel: str = 'inverse_multiquadric'
  regularizer: str = 'root_hsic_zz'

  def __post_init__(self):
    for name, known in (
      ('estimator', ESTIMATORS),
      ('kernel', KERNELS),
      ('regularizer', REGULARIZERS),
    ):
      value = getattr(self, name)
      if value not in known:
        raise ValueError(
          f'ssl_hsic has {name} = {value!r}; use one of {", ".join(known)}'
        )
    if not self.initial_scale > 0:
      raise ValueError(
        f'ssl_hsic has initial_scale = {self.initial_scale}; use a positive number'
      )
    self._check_estimator_settings()

  def _check_estimator_settings(self) -> None:
    for estimator, settings in _ESTIMATOR_SETTINGS.items():
      for name in settings:
        value = getattr(self, name)
        # The estimator in use would ignore the setting without a word.
        if estimator != self.estimator and value is not None:
          raise ValueError(
            f'ssl_hsic has {name} = {value!r}, a setting of the estimator '
            f'{estimator!r}, but estimator = {self.estimator!r}; use {name} = None'
          )
    settings = self._estimator_settings
    if self.estimator == 'features':
      fourier.check(settings['num_features'], settings['sampler'])
    if self.estimator == 'pairs' and not (
      isinstance(settings['block_size'], int) and settings['block_size'] > 0
    ):
      raise ValueError(
        f'ssl_hsic has block_size = {self.block_size!r}; use a whole number of images, '
        '1 or more'
      )

  @property
  def _estimator_settings(self) -> dict[str, Any]:
    """Settings of the estimator, with defaults in place of None."""
    return {
      name: default if getattr(self, name) is None else getattr(self, name)
      for name, default in _ESTIMATOR_SETTINGS[self.estimator].items()
    }

  def init(self, rng: chex.PRNGKey, dim: int) -> Params | tuple[()]:
    """The initial kernel scale; nothing for the linear kernel."""
    del rng, dim  # Nothing is random.
    if self.kernel == 'linear':
      return ()
    return Params(kernel_scale=jnp.float32(self.initial_scale))

  def check_batch(self, *, local_batch: int, batch_size: int, num_targets: int) -> None:
    """Checks that pairs of blocks divide the images of a device."""
    del batch_size, num_targets
    if self.estimator == 'pairs':
      pairs.check_block_size(self._estimator_settings['block_size'], local_batch)

  def kernel_of(self, params: Params | tuple[()]) -> kernels.Kernel:
    """The kernel at its learned scale."""
    return KERNELS[self.kernel](*map(_positive, params))

  def __call__(
    self,
    params: Params | tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
    state: chex.ArrayTree = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`.

    Its gradient by `params` is that of the kernel scale's own objective.
    """
    del state
    projections_lib.check(projections)
    terms, log_slope = self._measure(params, rng, projections, axis_name)
    loss = self.gamma * REGULARIZERS[self.regularizer](terms) - terms.hsic_zy
    metrics = {
      'loss': loss,
      'hsic_zy': terms.hsic_zy,
      'hsic_zz': terms.hsic_zz,
      'hsic_zz_not_positive': jnp.float32(terms.hsic_zz <= _SMALLEST_HSIC_ZZ),
    }
    if self.regularizer == 'kernel_variance':
      metrics['kernel_variance'] = terms.kernel_variance
    # Devices differ in their draws, so each has another estimate of the whole loss.
    if self.draw_per_device:
      loss, metrics = collectives.mean_over_devices((loss, metrics), axis_name)
    if self.kernel == 'linear':
      return loss, metrics
    scale = self.kernel_of(params).scale
    metrics |= {'kernel_scale': scale, 'kernel_log_slope': log_slope}
    # The scale's objective adds its gradient to the loss, not its value.
    return loss + (jax.lax.stop_gradient(log_slope) - log_slope), metrics

  def _measure(self, params, rng, projections, axis_name):
    """Terms of the loss, at a fixed scale, and the objective of the scale."""
    # Two copies of the kernel: the terms train the features at a fixed scale, the
    # objective trains the scale on fixed features.
    kernel = self.kernel_of(jax.lax.stop_gradient(params))
    learned = self.kernel_of(params)
    has_scale = self.kernel != 'linear'
    if self.estimator == 'pairs':
      of_inner = lambda t: learned.log_slope(
        kernels.squared_distance_on_sphere(jax.lax.stop_gradient(t))
      )
      return pairs.estimate(
        projections.parts,
        kernel,
        **self._estimator_settings,
        axis_name=axis_name,
        extra=of_inner if has_scale else jnp.zeros_like,
      )
    views = projections.views
    *draw_rngs, rows_rng = jax.random.split(rng, 3)
    log_slope = (
      mean_log_slope(learned, rows_rng, views, axis_name) if has_scale else None
    )
    if self.estimator == 'exact':
      return hsic.exact(projections.parts, kernel, axis_name), log_slope
    settings = self._estimator_settings
    if settings.pop('draw_per_device') and axis_name:
      device = jax.lax.axis_index(axis_name)
      draw_rngs = [jax.random.fold_in(rng, device) for rng in draw_rngs]
      # Each device takes the features of all, and needs no exchange after that.
      views, axis_name = collectives.gather_images(views, axis_name), None
    draw = functools.partial(fourier.draw, kernel, dim=views.shape[-1], **settings)
    phi_a, phi_b = (draw(rng=rng)(views) for rng in draw_rngs)
    return hsic.from_features(phi_a, phi_b, axis_name), log_slope


def _positive(scale: chex.Array) -> chex.Array:
  """The scale as a kernel has it, ≥ 1e-3: where features collapse, c falls past 0.

  A scale below 0 would turn the sign of the inverse multiquadric, and of the loss; one
  below 1e-3 would compare features by their rounding errors.
  """
  return jnp.sqrt(jnp.square(scale) + _SMALLEST_SCALE**2)


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
