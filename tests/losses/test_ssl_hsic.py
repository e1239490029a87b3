"""The SSL-HSIC loss: its terms, its kernel scale, and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import fourier, hsic, kernels, losses
from sslhsic.losses import ssl_hsic


def _projections(batch_size=16, dim=8, with_target=True):
  x = jax.random.normal(jax.random.key(0), (4, batch_size, dim))
  x = losses.l2_normalize(x + 2 * x[:1])
  return losses.Projections(x[:2], x[2:] if with_target else None)


@pytest.mark.parametrize('with_target', [True, False])
def test_loss_is_made_of_its_terms(with_target):
  loss = losses.create('ssl_hsic', num_features=64)
  params = loss.init(jax.random.key(0))
  projections = _projections(with_target=with_target)
  value, metrics = jax.jit(loss)(params, jax.random.key(1), projections)
  np.testing.assert_allclose(
    value, 3 * metrics['hsic_zz'] ** 0.5 - metrics['hsic_zy'], rtol=1e-6
  )
  np.testing.assert_array_equal(value, metrics['loss'])


@pytest.mark.parametrize('sampler', fourier.SAMPLERS)
def test_loss_approaches_the_exact_one(sampler):
  projections = _projections()
  loss = losses.create('ssl_hsic', num_features=4096, sampler=sampler)
  kernel = kernels.InverseMultiquadric(1.0)
  zy = hsic.exact_hsic_zy(projections.views, kernel)
  zz = hsic.exact_hsic_zz(projections.views, kernel)
  params = loss.init(jax.random.key(0))
  value, _ = jax.jit(loss)(params, jax.random.key(1), projections)
  np.testing.assert_allclose(value, 3 * zz**0.5 - zy, atol=0.02)


def test_all_views_count():
  """A target network adds its projections to the features of an image."""
  assert _projections().views.shape == (4, 16, 8)
  assert _projections(with_target=False).views.shape == (2, 16, 8)


@pytest.mark.parametrize('case', range(4))
def test_kernel_scale_objective_is_the_published_one(golden_values, case):
  golden = lambda key: golden_values[f'case{case}/{key}']
  rows = jnp.asarray(golden('views')).reshape(-1, golden('d'))

  def mean_log_slope(scale):
    squared_distances = kernels.squared_distances(rows, rows)
    return kernels.InverseMultiquadric(scale).log_slope(squared_distances).mean()

  value_and_grad = jax.jit(jax.value_and_grad(mean_log_slope))
  value, gradient = value_and_grad(jnp.float32(golden('scale')))
  np.testing.assert_allclose(value, golden('kernel_grad_log_norm'), rtol=1e-4)
  np.testing.assert_allclose(gradient, golden('kernel_grad_log_norm_dscale'), rtol=1e-4)


def test_drawn_pairs_estimate_the_mean_over_all_pairs():
  views = _projections().views
  rows = views.reshape(-1, 8)
  kernel = kernels.InverseMultiquadric(0.5)
  expected = kernel.log_slope(kernels.squared_distances(rows, rows)).mean()
  estimate = lambda rng: ssl_hsic.mean_log_slope(kernel, rng, views)
  estimates = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 200))
  assert abs(estimates.mean() - expected) < 3 * estimates.std() / 200**0.5


def test_kernel_scale_sees_its_own_objective_only():
  loss = losses.create('ssl_hsic', num_features=64)
  projections, rng = _projections(), jax.random.key(1)

  def total(params):
    return loss(params, rng, projections)[0]

  def own(scale):
    kernel = kernels.InverseMultiquadric(scale)
    anchors_rng = jax.random.split(rng, 3)[2]
    return -ssl_hsic.mean_log_slope(kernel, anchors_rng, projections.views)

  gradient = jax.jit(jax.grad(total))(loss.init(rng)).kernel_scale
  expected = jax.jit(jax.grad(own))(jnp.float32(1))
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_features_do_not_see_the_objective_of_the_kernel_scale():
  views = _projections().views
  kernel = kernels.InverseMultiquadric()
  mean = lambda views: ssl_hsic.mean_log_slope(kernel, jax.random.key(0), views)
  gradient = jax.jit(jax.grad(mean))(views)
  np.testing.assert_array_equal(gradient, jnp.zeros_like(views))


@pytest.mark.parametrize('num_devices', [1, 2, 4, 8])
@pytest.mark.parametrize('with_target', [True, False])
def test_loss_and_gradients_are_equal_on_any_number_of_devices(
  num_devices, with_target
):
  loss = losses.create('ssl_hsic', num_features=64)
  images = jax.random.normal(jax.random.key(2), (4, 16, 6))
  weights = jax.random.normal(jax.random.key(3), (6, 8))
  params = loss.init(jax.random.key(0))

  def of_weights(weights, params, images, axis_name=None):
    z = losses.l2_normalize(images @ weights)
    projections = losses.Projections(z[:2], z[2:] if with_target else None)
    return loss(params, jax.random.key(1), projections, axis_name)

  def gradients(images, axis_name=None):
    of_images = functools.partial(of_weights, images=images, axis_name=axis_name)
    grad_fn = jax.value_and_grad(of_images, argnums=(0, 1), has_aux=True)
    return grad_fn(weights, params)

  expected = jax.jit(gradients)(images)
  spread = images.reshape(4, num_devices, -1, 6).swapaxes(0, 1)
  actual = jax.pmap(
    lambda images: jax.lax.pmean(gradients(images, 'i'), 'i'),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )(spread)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    scale = np.abs(b).max()
    np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(
  'features',
  [jnp.ones([2, 4, 8]) / 8**0.5, jnp.zeros([2, 4, 8])],
  ids=['equal', 'zero'],
)
def test_collapsed_features_give_finite_gradients(features):
  loss = losses.create('ssl_hsic', num_features=64)
  params = loss.init(jax.random.key(0))

  def of_features(x):
    projections = losses.Projections(losses.l2_normalize(x))
    return loss(params, jax.random.key(1), projections)[0]

  value, gradient = jax.jit(jax.value_and_grad(of_features))(features)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_normalised_features_have_unit_norm_in_float32():
  x = losses.l2_normalize(jnp.bfloat16([[3.0, 4.0], [0.0, 0.0]]))
  assert x.dtype == jnp.float32
  np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_unknown_loss_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match=r"unknown loss 'hsic'; use one of ssl_hsic"):
    losses.create('hsic')
