"""HSIC against the published implementation, the definitions, and across devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import fourier, hsic, kernels

KERNELS = [
  kernels.Linear(),
  kernels.Gaussian(0.8),
  kernels.InverseMultiquadric(0.8),
  kernels.Laplace(0.8),
]
KERNEL_IDS = [type(kernel).__name__ for kernel in KERNELS]


def _views(num_views=3, batch_size=6, dim=5, seed=0):
  x = np.random.default_rng(seed).normal(size=(num_views, batch_size, dim))
  x[1:] += 2 * x[0]  # Views of an image resemble each other.
  return jnp.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


@pytest.fixture(scope='module', params=range(4))
def golden(request, golden_values):
  return {
    key.split('/')[1]: value
    for key, value in golden_values.items()
    if key.startswith(f'case{request.param}/')
  }


def _published_features(golden):
  return [
    fourier.RandomFeatures(jnp.float32(w / golden['scale']), jnp.asarray(b))
    for w, b in zip(golden['frequencies'], golden['phases'], strict=True)
  ]


def test_values_are_the_published_ones(golden):
  views = jnp.asarray(golden['views'])
  phi_a, phi_b = (phi(views) for phi in _published_features(golden))
  np.testing.assert_allclose(hsic.hsic_zy(phi_a), golden['hsic_zy'], rtol=1e-5)
  np.testing.assert_allclose(hsic.hsic_zz(phi_a, phi_b), golden['hsic_zz'], rtol=1e-5)


def test_gradient_is_the_published_one(golden):
  draw_a, draw_b = _published_features(golden)

  def loss(views):
    phi_a, phi_b = draw_a(views), draw_b(views)
    root = jnp.sqrt(hsic.hsic_zz(phi_a, phi_b))
    return golden['gamma'].astype(np.float32) * root - hsic.hsic_zy(phi_a)

  value_and_grad = jax.jit(jax.value_and_grad(loss))
  value, gradient = value_and_grad(jnp.asarray(golden['views']))
  np.testing.assert_allclose(value, golden['loss'], rtol=1e-5)
  scale = np.abs(golden['grad_views']).max()
  np.testing.assert_allclose(
    gradient, golden['grad_views'], rtol=1e-4, atol=1e-5 * scale
  )


def _loop_hsic_zy(views, kernel):
  num_views, batch_size, _ = views.shape
  compiled = jax.jit(lambda x, y: kernel(x, y))
  k = lambda x, y: float(compiled(x[None], y[None])[0, 0])
  pairs = list(itertools.product(range(num_views), range(num_views)))
  within = sum(k(views[p, i], views[q, i]) for i in range(batch_size) for p, q in pairs)
  rows = views.reshape(num_views * batch_size, -1)
  total = sum(k(x, y) for x in rows for y in rows)
  return (
    within / (batch_size * num_views * (num_views - 1))
    - total / (batch_size * num_views) ** 2
  )


@pytest.mark.parametrize('kernel', KERNELS, ids=KERNEL_IDS)
def test_exact_hsic_zy_is_the_definition(kernel):
  views = _views(num_views=2, batch_size=4)
  np.testing.assert_allclose(
    hsic.exact_hsic_zy(views, kernel), _loop_hsic_zy(views, kernel), rtol=1e-5
  )


@pytest.mark.parametrize('kernel', KERNELS, ids=KERNEL_IDS)
def test_exact_hsic_zz_is_the_trace(kernel):
  views = _views()
  rows = views.reshape(-1, views.shape[-1])
  gram = np.asarray(kernel(rows, rows), np.float64)
  n = len(rows)
  centring = np.eye(n) - 1 / n
  expected = np.trace(gram @ centring @ gram @ centring) / n**2
  np.testing.assert_allclose(hsic.exact_hsic_zz(views, kernel), expected, rtol=1e-4)


@pytest.mark.parametrize('kernel', KERNELS, ids=KERNEL_IDS)
def test_exact_kernel_variance_is_the_definition(kernel):
  views = _views()
  rows = views.reshape(-1, views.shape[-1])
  gram = np.asarray(kernel(rows, rows), np.float64)
  expected = np.mean([np.mean(row**2) - np.mean(row) ** 2 for row in gram])
  variance = jax.jit(hsic.exact)(views, kernel).kernel_variance
  np.testing.assert_allclose(variance, expected, rtol=1e-4)


@pytest.mark.parametrize('sampler', fourier.SAMPLERS)
@pytest.mark.parametrize('kernel', KERNELS[1:], ids=KERNEL_IDS[1:])
@pytest.mark.parametrize('dim', [1, 2, 256])
def test_feature_estimators_are_unbiased(kernel, sampler, dim):
  views = _views(dim=dim)

  def estimate(rng):
    phi_a, phi_b = (
      fourier.draw(kernel, key, dim=dim, num_features=16, sampler=sampler)(views)
      for key in jax.random.split(rng)
    )
    return hsic.from_features(phi_a, phi_b)

  draws = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 1000))
  exact = jax.jit(hsic.exact)(views, kernel)
  for estimates, value in zip(draws, exact, strict=True):
    standard_error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - value) <= 3 * standard_error


def _u_statistic(gram_x, gram_y):
  """HSIC as the mean over all ordered quadruples of different samples."""
  k, m = np.asarray(gram_x, np.float64), np.asarray(gram_y, np.float64)
  terms = [
    k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
    for i, j, q, r in itertools.permutations(range(len(k)), 4)
  ]
  return np.mean(terms)


@pytest.mark.parametrize('count', [4, 7])
def test_unbiased_hsic_is_the_mean_over_quadruples(count):
  x, y = _views(2, count)
  gram_x, gram_y = kernels.Gaussian(0.8)(x, x), kernels.Linear()(y, y)
  np.testing.assert_allclose(
    hsic.unbiased_hsic(gram_x, gram_y), _u_statistic(gram_x, gram_y), rtol=1e-4
  )


def test_unbiased_hsic_of_independent_samples_is_zero_on_average():
  def estimate(rng):
    x, y = jax.random.normal(rng, [2, 6, 3])
    kernel = kernels.Gaussian()
    return hsic.unbiased_hsic(kernel(x, x), kernel(y, y))

  estimates = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 2000))
  assert abs(estimates.mean()) <= 3 * estimates.std() / np.sqrt(2000)


def test_unbiased_hsic_of_three_samples_is_refused():
  with pytest.raises(ValueError, match='3 samples; the unbiased estimator needs 4'):
    hsic.unbiased_hsic(jnp.eye(3), jnp.eye(3))


def test_few_stratified_features_are_no_noisier_than_many_independent_ones():
  views = _views(num_views=4, batch_size=64, dim=256)
  kernel = kernels.InverseMultiquadric()

  def noise(num_features, sampler):
    def estimate(rng):
      phi_a, phi_b = (
        fourier.draw(kernel, key, dim=256, num_features=num_features, sampler=sampler)(
          views
        )
        for key in jax.random.split(rng)
      )
      return jnp.stack([hsic.hsic_zy(phi_a), hsic.hsic_zz(phi_a, phi_b)])

    draws = jax.random.split(jax.random.key(0), 100)
    return jax.jit(lambda draws: jax.lax.map(estimate, draws))(draws).std(axis=0)

  assert np.all(noise(64, 'stratified') <= 1.1 * noise(512, 'iid'))


def test_linear_features_are_exact():
  views = _views()
  estimates = hsic.from_features(views, views)
  exact = jax.jit(hsic.exact)(views, kernels.Linear())
  np.testing.assert_allclose(estimates, exact, rtol=1e-4)


@pytest.mark.parametrize('num_devices', [1, 2, 4, 8])
def test_value_and_gradient_do_not_depend_on_the_number_of_devices(num_devices):
  views = _views(num_views=2, batch_size=16, dim=8)
  kernel = kernels.InverseMultiquadric()

  def loss(views, axis_name=None):
    phi_a, phi_b = (
      fourier.draw(kernel, rng, dim=8, num_features=32)(views)
      for rng in jax.random.split(jax.random.key(0))
    )
    variance = hsic.kernel_variance(phi_a, phi_b, axis_name)
    zz = hsic.hsic_zz(phi_a, phi_b, axis_name)
    return zz + variance - hsic.hsic_zy(phi_a, axis_name)

  value, gradient = jax.jit(jax.value_and_grad(loss))(views)
  spread = views.reshape(2, num_devices, -1, 8).swapaxes(0, 1)
  values, gradients = jax.pmap(
    jax.value_and_grad(functools.partial(loss, axis_name='i')),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )(spread)
  np.testing.assert_allclose(values, jnp.full(num_devices, value), rtol=1e-5)
  # Each device holds the loss, so the gradient of their sum is that many times it.
  gathered = gradients.swapaxes(0, 1).reshape(views.shape) / num_devices
  np.testing.assert_allclose(gathered, gradient, rtol=1e-4, atol=1e-6)


def _dense_terms(views, kernel):
  """The terms from the whole Gram matrix, as they are defined."""
  num_views, batch_size, dim = views.shape
  rows = views.reshape(-1, dim)
  gram = kernel(rows, rows)
  image = jnp.tile(jnp.arange(batch_size), num_views)
  within = jnp.where(image[:, None] == image[None], gram, 0).sum(axis=1).mean()
  means = gram.mean(axis=1)
  centred = gram - means[:, None] - means[None] + means.mean()
  return hsic.Terms(
    within / (num_views - 1) - gram.mean(),
    jnp.mean(centred**2),
    gram.var(axis=1).mean(),
  )


@pytest.mark.parametrize('num_views', [2, 3, 4, 8])
@pytest.mark.parametrize('kernel', KERNELS, ids=KERNEL_IDS)
def test_exact_in_blocks_is_exact_with_the_whole_matrix(kernel, num_views, monkeypatch):
  """Values and gradients, where the blocks are few rows and do not divide them."""
  views = _views(num_views, batch_size=6)
  monkeypatch.setitem(hsic._BLOCK_ENTRIES, 'cpu', 5 * num_views * 6)

  def measure(terms, views):
    value, pullback = jax.vjp(lambda views: terms(views, kernel), views)
    return value, [pullback(unit)[0] for unit in _units()]

  value, gradients = jax.jit(functools.partial(measure, hsic.exact))(views)
  expected, dense = jax.jit(functools.partial(measure, _dense_terms))(views)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
  for gradient, reference in zip(gradients, dense, strict=True):
    scale = jnp.linalg.norm(reference)
    assert jnp.linalg.norm(gradient - reference) <= 1e-5 * scale


def _units():
  """Cotangents that select one term."""
  return [hsic.Terms(*map(jnp.float32, row)) for row in np.eye(3)]


def test_exact_of_parts_has_the_same_value_and_the_gradient_of_each():
  views, kernel = _views(4, 6), kernels.InverseMultiquadric()
  total = lambda views: sum(hsic.exact(views, kernel))
  value, gradient = jax.jit(jax.value_and_grad(total))(views)
  of_parts = jax.jit(jax.value_and_grad(lambda x, y: total([x, y]), argnums=(0, 1)))
  value_of_parts, gradients = of_parts(views[:3], views[3:])
  np.testing.assert_allclose(value_of_parts, value, rtol=1e-6)
  np.testing.assert_allclose(jnp.concatenate(gradients), gradient, 1e-4, 1e-6)


def test_exact_needs_a_fraction_of_the_memory_of_the_matrix(monkeypatch):
  monkeypatch.setitem(hsic._BLOCK_ENTRIES, 'cpu', 2**16)
  views = jax.ShapeDtypeStruct([2, 1024, 4], jnp.float32)
  total = lambda views: sum(hsic.exact(views, kernels.InverseMultiquadric()))
  compiled = jax.jit(jax.grad(total)).lower(views).compile()
  matrix_bytes = 4 * (2 * 1024) ** 2
  assert compiled.memory_analysis().temp_size_in_bytes < matrix_bytes / 4


def test_exact_of_nearly_equal_features_keeps_its_digits():
  """HSIC(Z,Z) is here a millionth of the mean of k²."""
  views = _views(batch_size=16)
  views = views[:1, :1] + 0.02 * views
  kernel = kernels.InverseMultiquadric()
  rows = np.asarray(views, np.float64).reshape(-1, views.shape[-1])
  squares = np.sum((rows[:, None] - rows[None]) ** 2, axis=-1)
  gram = 1 / np.sqrt(1 + squares)
  centring = np.eye(len(gram)) - 1 / len(gram)
  expected = np.sum((centring @ gram @ centring) ** 2) / gram.size
  np.testing.assert_allclose(jax.jit(hsic.exact)(views, kernel).hsic_zz, expected, 1e-3)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_exact_does_not_depend_on_the_number_of_devices(num_devices):
  views, kernel = _views(batch_size=8), kernels.InverseMultiquadric()

  def total(views, axis_name=None):
    terms = hsic.exact([views[:2], views[2:]], kernel, axis_name)
    return sum(terms), terms

  (_, expected), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(views)
  spread = views.reshape(3, num_devices, -1, 5).swapaxes(0, 1)
  mapped = jax.pmap(
    jax.value_and_grad(functools.partial(total, axis_name='i'), has_aux=True),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )
  (_, terms), gradients = mapped(spread)
  for values, value in zip(terms, expected, strict=True):
    np.testing.assert_allclose(values, np.full(num_devices, value), rtol=1e-5)
  gathered = gradients.swapaxes(0, 1).reshape(views.shape) / num_devices
  np.testing.assert_allclose(gathered, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  'views',
  [jnp.ones([2, 4, 8]) / 8**0.5, jnp.zeros([2, 4, 8]), _views(2, 1, 8)],
  ids=['equal', 'zero', 'one image'],
)
def test_degenerate_features_give_finite_gradients(views):
  kernel = kernels.InverseMultiquadric()

  def loss(views):
    phi = fourier.draw(kernel, jax.random.key(0), dim=8, num_features=8)(views)
    return hsic.hsic_zz(phi, phi) - hsic.hsic_zy(phi)

  value, gradient = jax.jit(jax.value_and_grad(loss))(views)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_one_view_is_refused():
  with pytest.raises(ValueError, match='1 view of each image'):
    hsic.hsic_zy(jnp.zeros([1, 4, 8]))
