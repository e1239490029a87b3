"""The theory as measured: definitions, identities, and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial, special

from sslhsic import kernels, losses
from sslhsic.evaluation import dependence

KERNELS = [
  kernels.Linear(0.7),
  kernels.Gaussian(0.8),
  kernels.InverseMultiquadric(0.8),
  kernels.Laplace(0.8),
]
every_kernel = pytest.mark.parametrize(
  'kernel', KERNELS, ids=[type(kernel).__name__ for kernel in KERNELS]
)


def _views(num_views=3, batch_size=8, dim=5, pull=2.0):
  x = np.random.default_rng(0).normal(size=(num_views, batch_size, dim))
  x[1:] += pull * x[0]  # Views of an image resemble each other.
  return jnp.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


def _measure(views, kernel):
  return jax.jit(lambda views: dependence.measure(views, kernel))(views)


def _gram(views, kernel):
  """[B·M, B·M] in float64, the views of an image together."""
  rows = views.swapaxes(0, 1).reshape(-1, views.shape[-1])
  return np.asarray(kernel(rows, rows), np.float64)


@every_kernel
def test_hsic_zz_is_the_variance_less_that_of_the_means(kernel):
  """And so never above it."""
  measured = _measure(_views(), kernel)
  means = _gram(_views(), kernel).mean(axis=1)
  difference = measured['exact_kernel_variance'] - measured['exact_hsic_zz']
  np.testing.assert_allclose(difference, means.var(), rtol=1e-2, atol=1e-6)
  assert difference > 0


@every_kernel
def test_info_nce_is_the_loop_of_its_definition(kernel):
  num_views, batch_size = 3, 8
  gram = _gram(_views(num_views, batch_size), kernel)
  terms, approximations = [], []
  for z in range(num_views * batch_size):
    others = [j for j in range(len(gram)) if j != z]
    positives = [j for j in others if j // num_views == z // num_views]
    k = gram[z, others]
    positive = gram[z, positives].mean()
    terms.append(special.logsumexp(k) - np.log(len(others)) - positive)
    approximations.append(k.mean() + k.var() / 2 - positive)
  measured = _measure(_views(), kernel)
  np.testing.assert_allclose(measured['kernel_info_nce'], np.mean(terms), rtol=1e-4)
  np.testing.assert_allclose(
    measured['kernel_info_nce_approximation'], np.mean(approximations), rtol=1e-4
  )


def test_info_nce_is_the_loss_of_that_name():
  views = _views(num_views=2)
  loss = losses.create('info_nce', temperature=0.3)
  value, _ = jax.jit(loss)((), jax.random.key(0), losses.Projections(views))
  measured = _measure(views, loss.kernel_of(()))
  np.testing.assert_allclose(
    measured['kernel_info_nce'] + np.log(2 * 8 - 1), value, rtol=1e-5
  )


def test_error_of_the_second_order_is_of_the_third():
  """Half the kernel, an eighth of the error."""

  def error(scale):
    gram = lambda views: dependence.measure(views, kernels.Linear(scale))
    measured = jax.jit(gram)(_views(2, 64, 16))
    return measured['kernel_info_nce'] - measured['kernel_info_nce_approximation']

  ratio = error(0.5) / error(0.5 * 2**0.5)
  assert 6 < ratio < 12


@every_kernel
def test_mmd_is_the_mean_distance_of_mean_embeddings(kernel):
  num_views, batch_size = 3, 8
  gram = _gram(_views(num_views, batch_size), kernel)
  inner = gram.reshape(batch_size, num_views, batch_size, num_views).mean(axis=(1, 3))
  squared = np.diag(inner)[:, None] + np.diag(inner)[None, :] - 2 * inner
  measured = _measure(_views(), kernel)
  np.testing.assert_allclose(measured['view_mmd'], squared.mean(), rtol=1e-4)
  # Twice HSIC(Z,Y), here with all M² pairs of an image weighted alike.
  biased = np.trace(inner) / batch_size - inner.mean()
  np.testing.assert_allclose(measured['view_mmd'], 2 * biased, rtol=1e-4)


def test_scatter_is_hsic_in_the_linear_kernel_when_the_features_are_centred():
  x = _views(4, 8, 6)
  views = jnp.concatenate([x, -x], axis=1)
  measured = _measure(views, kernels.Linear())
  np.testing.assert_allclose(
    measured['view_scatter'], 4 - 3 * measured['exact_hsic_zy'], rtol=1e-4
  )


def test_scatter_alignment_and_uniformity_are_those_of_scipy():
  views = np.asarray(_views(), np.float64)
  measured = _measure(_views(), kernels.Linear())
  by_image = views.swapaxes(0, 1)
  scatters = [np.sum((x - x.mean(axis=0)) ** 2) for x in by_image]
  np.testing.assert_allclose(measured['view_scatter'], np.mean(scatters), rtol=1e-4)
  alignments = [spatial.distance.pdist(x, 'sqeuclidean').mean() for x in by_image]
  np.testing.assert_allclose(measured['alignment'], np.mean(alignments), rtol=1e-4)
  distances = spatial.distance.pdist(views.reshape(-1, 5), 'sqeuclidean')
  np.testing.assert_allclose(
    measured['uniformity'], np.log(np.mean(np.exp(-2 * distances))), rtol=1e-4
  )


@pytest.mark.parametrize('num_devices', [1, 2, 4, 8])
def test_measures_do_not_depend_on_the_number_of_devices(num_devices):
  views, kernel = _views(), KERNELS[2]
  expected = _measure(views, kernel)
  spread = views.reshape(3, num_devices, -1, 5).swapaxes(0, 1)
  measure = functools.partial(dependence.measure, kernel=kernel, axis_name='i')
  mapped = jax.pmap(measure, axis_name='i', devices=jax.devices()[:num_devices])
  for name, values in mapped(spread).items():
    np.testing.assert_allclose(
      values, np.full(num_devices, expected[name]), rtol=1e-5, atol=1e-7
    )


def test_collapsed_features_are_measured_without_nan():
  measured = _measure(jnp.ones([2, 4, 8]) / 8**0.5, kernels.InverseMultiquadric())
  assert all(np.isfinite(value) for value in measured.values())
