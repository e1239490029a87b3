"""Kernels against plain NumPy, and their frequencies against the kernel itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sslhsic import kernels

SCALE = 0.7


def _distances(x, y):
  return np.array([[np.sum((a - b) ** 2) for b in y] for a in x])


@pytest.mark.parametrize(
  ('kernel', 'reference'),
  [
    (kernels.Linear(), lambda x, y: x @ y.T),
    (
      kernels.Gaussian(SCALE),
      lambda x, y: np.exp(-_distances(x, y) / (2 * SCALE**2)),
    ),
    (
      kernels.InverseMultiquadric(SCALE),
      lambda x, y: SCALE / np.sqrt(SCALE**2 + _distances(x, y)),
    ),
    (kernels.Linear(SCALE), lambda x, y: x @ y.T / SCALE**2),
    (kernels.Laplace(SCALE), lambda x, y: np.exp(-np.sqrt(_distances(x, y)) / SCALE)),
  ],
)
@pytest.mark.parametrize('dim', [1, 2, 32])
def test_gram_matrix_is_that_of_the_definition(kernel, reference, dim):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(5, dim)), rng.normal(size=(7, dim))
  gram = kernel(jnp.float32(x), jnp.float32(y))
  assert gram.shape == (5, 7)
  np.testing.assert_allclose(gram, reference(x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['Gaussian', 'InverseMultiquadric'])
def test_log_slope_is_the_derivative_by_squared_distance(name):
  kernel_class = getattr(kernels, name)

  def of_squared_distance(s):
    return kernel_class(SCALE)(jnp.zeros([1, 1]), jnp.sqrt(s)[None, None])[0, 0]

  for s in (0.1, 1.0, 4.0):
    slope = jax.grad(of_squared_distance)(jnp.float32(s))
    np.testing.assert_allclose(
      kernel_class(SCALE).log_slope(jnp.float32(s)), np.log(-slope), rtol=1e-4
    )


def test_scale_gradient_of_the_mean_log_slope_vanishes_where_the_theory_says():
  """At the optimum the mean of c²/(s + c²) is a third."""
  s = jnp.float32(np.random.default_rng(0).uniform(0.5, 2, size=1000))

  def mean_log_slope(c):
    return kernels.InverseMultiquadric(c).log_slope(s).mean()

  scales = jnp.linspace(0.3, 1.5, 2001)
  best = scales[jax.vmap(mean_log_slope)(scales).argmax()]
  np.testing.assert_allclose((best**2 / (s + best**2)).mean(), 1 / 3, atol=1e-3)


def test_inverse_multiquadric_amplitudes_are_half_normal():
  tails = jnp.float32([1e-30, 1e-6, 0.01, 0.5, 0.99, 1.0])
  amplitudes = kernels.InverseMultiquadric().amplitudes(tails)
  np.testing.assert_allclose(
    amplitudes, stats.halfnorm.isf(tails), rtol=1e-4, atol=1e-6
  )


def test_laplace_amplitudes_are_the_inverse_of_half_normal():
  tails = jnp.float32([1e-6, 0.01, 0.5, 0.99])
  np.testing.assert_allclose(
    kernels.Laplace().amplitudes(tails), 1 / stats.halfnorm.ppf(np.float64(tails)), 1e-4
  )


def test_laplace_kernel_of_a_point_with_itself_is_one_and_has_a_finite_gradient():
  x = jnp.float32(np.random.default_rng(0).normal(size=(3, 8)))
  gram, gradient = jax.value_and_grad(lambda x: kernels.Laplace()(x, x).sum())(x)
  assert gram >= 3
  np.testing.assert_array_equal(jnp.diagonal(kernels.Laplace()(x, x)), jnp.ones(3))
  assert np.all(np.isfinite(gradient))


def test_gram_matrix_rejects_features_of_different_dimension():
  with pytest.raises(AssertionError):
    kernels.InverseMultiquadric()(jnp.zeros([2, 3]), jnp.zeros([2, 4]))


def test_bfloat16_features_give_a_float32_gram_matrix():
  x = jnp.ones([2, 3], jnp.bfloat16)
  assert kernels.InverseMultiquadric()(x, x).dtype == jnp.float32
