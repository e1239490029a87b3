"""Random features against the kernels that they approximate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import fourier, kernels

SHIFT_INVARIANT = [
  kernels.Gaussian(0.8),
  kernels.InverseMultiquadric(0.8),
  kernels.Laplace(0.8),
]


def _unit_features(count, dim, seed=0):
  x = np.random.default_rng(seed).normal(size=(count, dim))
  return jnp.float32(x / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize(
  ('largest', 'tolerance'), [(1.0, 1e-7), (1e3, 2e-7), (2e4, 1e-6)]
)
def test_cosine_and_sine_are_those_of_numpy(largest, tolerance):
  x = np.random.default_rng(0).uniform(-largest, largest, 10_000).astype(np.float32)
  x = np.append(x, np.float32([0, np.pi / 4, -np.pi / 4, np.pi / 2, -np.pi, 3 * np.pi]))
  cos, sin = jax.jit(fourier.cos_sin)(x)
  np.testing.assert_allclose(cos, np.cos(x.astype(np.float64)), rtol=0, atol=tolerance)
  np.testing.assert_allclose(sin, np.sin(x.astype(np.float64)), rtol=0, atol=tolerance)


def test_gradients_of_cosine_and_sine_are_each_other():
  x = jnp.linspace(-9, 9, 7)
  cos, sin = fourier.cos_sin(x)
  of = lambda index: jax.grad(lambda x: fourier.cos_sin(x)[index].sum())(x)
  np.testing.assert_allclose(of(0), -sin, rtol=1e-6)
  np.testing.assert_allclose(of(1), cos, rtol=1e-6)


@pytest.mark.parametrize('sampler', fourier.SAMPLERS)
@pytest.mark.parametrize('kernel', SHIFT_INVARIANT, ids=lambda k: type(k).__name__)
@pytest.mark.parametrize('dim', [1, 2, 256])
def test_inner_products_are_unbiased(kernel, sampler, dim):
  x = _unit_features(6, dim)

  def gram(rng):
    phi = fourier.draw(kernel, rng, dim=dim, num_features=8, sampler=sampler)(x)
    return phi @ phi.T

  grams = jax.jit(jax.vmap(gram))(jax.random.split(jax.random.key(1), 2000))
  error = np.abs(grams.mean(axis=0) - kernel(x, x))
  standard_error = grams.std(axis=0) / np.sqrt(len(grams))
  # 21 distinct entries: four standard errors are exceeded once in 700 such tests.
  assert np.all(error <= 4 * standard_error + 1e-5)


@pytest.mark.parametrize('dim', [2, 64])
def test_stratified_inverse_multiquadric_has_less_variance(dim):
  kernel, x = kernels.InverseMultiquadric(), _unit_features(8, dim)

  def variance(sampler):
    def gram(rng):
      phi = fourier.draw(kernel, rng, dim=dim, num_features=64, sampler=sampler)(x)
      return phi @ phi.T

    grams = jax.jit(jax.vmap(gram))(jax.random.split(jax.random.key(0), 200))
    return grams.var(axis=0).mean()

  assert variance('stratified') < 0.6 * variance('iid')


@pytest.mark.parametrize(('num_features', 'rank'), [(16, 8), (48, 8), (64, 8)])
def test_orthogonal_frequencies_are_so_in_blocks(num_features, rank):
  """Neighbours are of different blocks; lengths vary as those of normal vectors."""
  draw = fourier.draw(
    kernels.Gaussian(),
    jax.random.key(0),
    dim=8,
    num_features=num_features,
    sampler='orthogonal',
  )
  num_blocks = num_features // 2 // rank
  block = draw.frequencies[::num_blocks]
  gram = block @ block.T
  squared_lengths = jnp.diagonal(gram)
  np.testing.assert_allclose(gram - jnp.diag(squared_lengths), 0, atol=1e-4)
  assert squared_lengths.std() > 0.5  # χ² of 8 degrees of freedom: 4.


def test_orthogonal_directions_have_less_variance_than_strata_alone():
  """For kernels of near points, on which gradients depend."""
  kernel = kernels.InverseMultiquadric()
  x = _unit_features(64, 16)
  y = x + 0.1 * _unit_features(64, 16, seed=1)

  def variance(sampler):
    def slopes(rng):
      draw = fourier.draw(kernel, rng, dim=16, num_features=64, sampler=sampler)
      of_pair = lambda x, y: jnp.dot(draw(x), draw(y))
      return jax.vmap(jax.grad(of_pair))(x, y)

    found = jax.jit(jax.vmap(slopes))(jax.random.split(jax.random.key(0), 200))
    return found.var(axis=0).mean()

  assert variance('orthogonal') < 0.85 * variance('stratified')


def test_cosine_and_sine_features_have_unit_norm():
  kernel = kernels.InverseMultiquadric()
  phi = fourier.draw(kernel, jax.random.key(0), dim=16, num_features=32)
  norms = jnp.linalg.norm(phi(_unit_features(10, 16)), axis=1)
  np.testing.assert_allclose(norms, 1, rtol=1e-6)


def test_every_frequency_is_finite():
  """Float32 must not round the last stratum's quantile to infinity."""
  for kernel in SHIFT_INVARIANT:
    draw = fourier.draw(kernel, jax.random.key(3), dim=1, num_features=200_000)
    assert np.all(np.isfinite(draw.frequencies))


def test_linear_kernel_is_its_own_feature_map():
  x = _unit_features(4, 8)
  phi = fourier.draw(kernels.Linear(2.0), jax.random.key(0), dim=8, num_features=2)
  np.testing.assert_array_equal(phi(x), x / 2)


def test_leading_axes_pass_through():
  x = _unit_features(6, 8)
  phi = fourier.draw(
    kernels.Gaussian(), jax.random.key(0), dim=8, num_features=10, sampler='iid'
  )
  folded = phi(x.reshape(2, 3, 8))
  assert folded.shape == (2, 3, 10)
  np.testing.assert_allclose(folded.reshape(6, 10), phi(x), atol=1e-6)


def test_bfloat16_features_are_mapped_in_float32():
  phi = fourier.draw(kernels.Gaussian(), jax.random.key(0), dim=8, num_features=4)
  assert phi(jnp.ones([3, 8], jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
  ('num_features', 'sampler', 'message'),
  [
    (8, 'sobol', "unknown sampler 'sobol'"),
    (7, 'stratified', 'num_features is 7'),
    (0, 'iid', 'num_features is 0'),
  ],
)
def test_what_cannot_be_drawn_is_refused(num_features, sampler, message):
  with pytest.raises(ValueError, match=message):
    fourier.draw(
      kernels.Gaussian(),
      jax.random.key(0),
      dim=2,
      num_features=num_features,
      sampler=sampler,
    )
