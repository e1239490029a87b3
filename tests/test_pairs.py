"""HSIC from pairs: unbiased, exact where it can be, and equal on any devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import hsic, kernels, losses, pairs

KERNELS = [
  kernels.InverseMultiquadric(0.7),
  kernels.Gaussian(0.8),
  kernels.Linear(0.9),
]
every_kernel = pytest.mark.parametrize(
  'kernel', KERNELS, ids=[type(kernel).__name__ for kernel in KERNELS]
)


def _views(num_views=3, batch_size=8, dim=5, pull=1.0, seed=0):
  x = np.random.default_rng(seed).normal(size=(num_views, batch_size, dim))
  x[1:] += pull * x[0]  # Views of an image resemble each other.
  return jnp.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


def _terms(views, kernel, block_size, **settings):
  return pairs.estimate(views, kernel, block_size=block_size, **settings)[0]


def _over_orders(function, views):
  """Values of a function of the views, for all orders of their images."""
  orders = jnp.array(list(itertools.permutations(range(views.shape[1]))))
  values = jax.jit(
    lambda views: jax.lax.map(lambda order: function(views[:, order]), orders)
  )(views)
  return jax.tree.map(lambda x: np.asarray(x, np.float64), values)


@every_kernel
@pytest.mark.parametrize('block_size', [1, 3])
def test_hsic_zy_and_its_gradient_are_unbiased(kernel, block_size):
  """Over all 720 orders of six images; with T = 3 the pair of blocks is the batch."""
  views = _views(batch_size=6)
  noise = jax.random.normal(jax.random.key(0), views.shape)
  # Along the sphere: the estimator knows no features of another norm.
  along = noise - jnp.sum(noise * views, axis=-1, keepdims=True) * views

  def value_and_derivative(terms, both):
    return jax.jvp(lambda x: terms(x).hsic_zy, *((x,) for x in both))

  both = jnp.stack([views, along], axis=2)  # They are put in order together.
  split = lambda both: (both[:, :, 0], both[:, :, 1])
  estimates = _over_orders(
    lambda both: value_and_derivative(
      lambda views: _terms(views, kernel, block_size), split(both)
    ),
    both,
  )
  exact = value_and_derivative(lambda views: hsic.exact(views, kernel), split(both))
  for values, expected in zip(estimates, exact, strict=True):
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-5, atol=1e-6)


@every_kernel
@pytest.mark.parametrize('covariance', [False, True])
def test_hsic_zz_is_unbiased_up_to_the_variance_of_the_mean_rest(kernel, covariance):
  views = _views(batch_size=6)
  estimates = _over_orders(
    lambda views: _terms(views, kernel, 3, covariance=covariance), views
  )
  exact = jax.jit(hsic.exact)(views, kernel)
  # HSIC(Z,Y) varies with the estimate of E ρ alone.
  variance = estimates.hsic_zy.var()
  np.testing.assert_allclose(
    estimates.hsic_zz.mean() - variance, exact.hsic_zz, rtol=1e-4
  )
  np.testing.assert_allclose(
    estimates.kernel_variance.mean(), exact.kernel_variance, rtol=1e-4
  )


@every_kernel
def test_blocks_of_one_image_raise_hsic_zz_by_twice_the_variance_of_the_rest(kernel):
  views = _views(batch_size=6)
  estimates = _over_orders(lambda views: _terms(views, kernel, 1), views)
  exact = hsic.exact(views, kernel).hsic_zz
  bias = 2 * _rest(views, kernel).mean(axis=1).var() - estimates.hsic_zy.var()
  np.testing.assert_allclose(estimates.hsic_zz.mean(), exact + bias, rtol=1e-4)


def _rest(views, kernel):
  """r of all pairs of features, in float64: the kernel less its tangent."""
  rows = np.asarray(views, np.float64).reshape(-1, views.shape[-1])
  t = rows @ rows.T
  at = jnp.float32(np.sum(rows.mean(axis=0) ** 2))
  value, slope = jax.jvp(kernel.on_sphere, (at,), (jnp.float32(1),))
  gram = np.asarray(kernel.on_sphere(jnp.float32(t)), np.float64)
  return gram - float(value) - float(slope) * (t - float(at))


def test_linear_kernel_has_the_exact_hsic_zy_in_any_order():
  views, kernel = _views(batch_size=8), kernels.Linear(0.9)
  value_and_grad = lambda f: jax.jit(jax.value_and_grad(f))(views)
  value, gradient = value_and_grad(lambda v: _terms(v, kernel, 2).hsic_zy)
  expected, exact = value_and_grad(lambda v: hsic.exact(v, kernel).hsic_zy)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-6)


def test_covariance_makes_hsic_zz_of_the_linear_kernel_exact():
  views, kernel = _views(batch_size=8), kernels.Linear(0.9)
  value_and_grad = lambda f: jax.jit(jax.value_and_grad(f))(views)
  value, gradient = value_and_grad(
    lambda v: _terms([v[:1], v[1:]], kernel, 2, covariance=True).hsic_zz
  )
  expected, exact = value_and_grad(lambda v: hsic.exact(v, kernel).hsic_zz)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('covariance', [False, True])
def test_large_batches_compile(covariance):
  """The square of 131,072 features is no int32."""
  views = jax.ShapeDtypeStruct([4, 32768, 8], jnp.float32)
  total = lambda views: sum(_terms(views, KERNELS[0], 8, covariance=covariance))
  assert jax.jit(jax.grad(total)).lower(views).out_info.shape == views.shape
  of_features = lambda phi: sum(hsic.from_features(phi, phi))
  assert jax.jit(of_features).lower(views).out_info.shape == ()


@every_kernel
@pytest.mark.parametrize('num_views', [2, 3, 4, 8])
def test_terms_are_the_loop_of_their_definition(kernel, num_views):
  """A NumPy transcription of the module's equations, pair by pair."""
  batch_size, block_size = 8, 2
  views = _views(num_views, batch_size)
  terms, extra = jax.jit(
    lambda views: pairs.estimate(views, kernel, block_size=2, extra=jnp.exp)
  )(views)
  expected, expected_extra = _loop(views, kernel, batch_size, block_size)
  np.testing.assert_allclose(terms, expected, rtol=2e-4, atol=1e-6)
  np.testing.assert_allclose(extra, expected_extra, rtol=1e-5)


def _loop(views, kernel, batch_size, block_size):
  num_views = len(views)
  rows = np.asarray(views, np.float64)
  centre = rows.mean(axis=(0, 1))
  at = jnp.float32(centre @ centre)
  value, slope = map(float, jax.jvp(kernel.on_sphere, (at,), (jnp.float32(1),)))
  f = jax.jit(kernel.on_sphere)
  count = num_views * batch_size

  def pair(x, y):
    t = x @ y
    k = float(f(jnp.float32(t)))
    r = k - value - slope * (t - float(at))
    return k, r, r + slope * (x - centre) @ (y - centre), np.exp(t)

  within = other = np.zeros(4)  # Sums of k, r, q² and the extra function.
  rho, rho_square, linear = [], [], []
  for i in range(batch_size):
    block = i // block_size
    partners = range(block_size * (block ^ 1), block_size * ((block ^ 1) + 1))
    for p in range(num_views):
      x = rows[p, i]
      own = [pair(x, y) for y in rows[:, i]]
      within = within + sum(np.array([k, r, q**2, e]) for k, r, q, e in own)
      by_image = []
      for j in partners:
        found = [pair(x, y) for y in rows[:, j]]
        other = other + sum(np.array([k, r, q**2, e]) for k, r, q, e in found)
        by_image.append(np.mean([r for _, r, _, _ in found]))
      share = 1 - 1 / batch_size
      mean = sum(r for _, r, _, _ in own) / count + share * np.mean(by_image)
      variance = np.var(by_image, ddof=1) / block_size
      variance *= 1 - block_size / (batch_size - 1)
      rho.append(mean)
      rho_square.append(mean**2 - share**2 * variance)
      linear.append(slope * (x @ centre - centre @ centre))
  compared = count * num_views * block_size
  over_pairs = within / count**2 + (1 - 1 / batch_size) * other / compared
  rho, rho_square, linear = map(np.array, (rho, rho_square, linear))
  zy = within[0] / (count * (num_views - 1)) - value - rho.mean()
  zz = over_pairs[2] - 2 * rho_square.mean() + rho.mean() ** 2
  spread = np.mean(linear**2 + 2 * linear * rho + rho_square) - rho.mean() ** 2
  return (zy, zz, zz + spread), over_pairs[3]


@pytest.mark.parametrize('num_devices', [1, 2, 4, 8])
@pytest.mark.parametrize('num_views', [2, 3])
def test_value_and_gradient_do_not_depend_on_the_number_of_devices(
  num_devices, num_views
):
  views = _views(num_views, batch_size=32)

  def total(views, axis_name=None):
    terms, extra = pairs.estimate(
      [views[:1], views[1:]],
      KERNELS[0],
      block_size=2,
      covariance=num_views == 3,
      axis_name=axis_name,
      extra=jnp.square,
    )
    return sum(terms) + extra, (terms, extra)

  grad_fn = jax.value_and_grad(total, has_aux=True)
  (_, expected), gradient = jax.jit(grad_fn)(views)
  spread = views.reshape(num_views, num_devices, -1, 5).swapaxes(0, 1)
  mapped = jax.pmap(
    jax.value_and_grad(functools.partial(total, axis_name='i'), has_aux=True),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )
  (_, found), gradients = mapped(spread)
  for values, value in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(values, np.full(num_devices, value), rtol=1e-5)
  gathered = gradients.swapaxes(0, 1).reshape(views.shape) / num_devices
  error = jnp.linalg.norm(gathered - gradient)
  assert error <= 1e-5 * jnp.linalg.norm(gradient)


def test_groups_of_blocks_do_not_change_the_result(monkeypatch):
  """Of 18 pairs of blocks, at most four at once: groups of three."""
  views = _views(batch_size=72)
  grad_fn = jax.value_and_grad(lambda views: sum(_terms(views, KERNELS[0], 2)))
  whole = jax.jit(grad_fn)(views)
  monkeypatch.setitem(pairs._IMAGES_AT_ONCE, 'cpu', 16)
  assert pairs._groups(views, 2).shape[:3] == (6, 3, 3)
  in_groups = jax.jit(lambda views: grad_fn(views))(views)
  np.testing.assert_allclose(in_groups[0], whole[0], rtol=1e-6)
  np.testing.assert_allclose(in_groups[1], whole[1], rtol=1e-4, atol=1e-7)


def test_gradient_noise_is_a_fraction_of_the_noise_of_features():
  """At T = 4, of the loss at γ = 3, along the sphere; as in `benchmarks.loss`."""
  views, key = _views(2, 64, 64, pull=2.0), jax.random.key(0)

  def gradient(loss, views, rng):
    def total(views):
      projections = losses.Projections(losses.l2_normalize(views))
      return loss(loss.init(rng, 64), rng, projections)[0]

    return jax.grad(total)(views)

  exact = gradient(losses.create('ssl_hsic', estimator='exact'), views, key)

  def error(**settings):
    """Root mean square over eight orders of the batch, and draws of features."""
    loss, shuffle = losses.create('ssl_hsic', **settings), np.random.default_rng(0)
    compiled, squares = jax.jit(functools.partial(gradient, loss)), []
    for number in range(8):
      order = shuffle.permutation(64)
      found = compiled(views[:, order], jax.random.fold_in(key, number))
      squares.append(np.sum((found[:, np.argsort(order)] - exact) ** 2))
    return np.sqrt(np.mean(squares))

  assert error(estimator='pairs', block_size=4) < error(estimator='features') / 2


def test_covariance_takes_the_noise_away_where_features_are_close():
  views = _views(2, 32, 32)
  views = losses.l2_normalize(views[:1, :1] + 0.2 * views)
  exact = jax.grad(lambda v: hsic.exact(v, KERNELS[0]).hsic_zz)(views)
  tangent = lambda x, v: x - jnp.sum(x * v, axis=-1, keepdims=True) * v

  def error(covariance):
    gradient = jax.jit(
      jax.grad(lambda v: _terms(v, KERNELS[0], 2, covariance=covariance).hsic_zz)
    )
    return jnp.linalg.norm(tangent(gradient(views) - exact, views))

  assert error(covariance=True) < error(covariance=False) / 5


def test_equal_features_give_exact_terms_and_finite_gradients():
  views = jnp.ones([2, 8, 4]) / 2

  def total(views):
    terms = _terms(views, KERNELS[0], 2)
    return sum(terms), terms

  (_, terms), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(views)
  np.testing.assert_allclose(terms.hsic_zy, 1, rtol=1e-5)
  np.testing.assert_allclose(terms.hsic_zz, 0, atol=1e-10)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize('block_size', [1, 2])
def test_one_pair_of_blocks_is_enough(block_size):
  views = _views(batch_size=2 * block_size)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda views: sum(_terms(views, KERNELS[0], block_size)))
  )(views)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_bfloat16_features_are_compared_in_float32():
  views = _views(batch_size=16).astype(jnp.bfloat16)
  terms, _ = pairs.estimate(views, KERNELS[0], block_size=2)
  expected, _ = pairs.estimate(views.astype(jnp.float32), KERNELS[0], block_size=2)
  assert {term.dtype for term in terms} == {jnp.dtype('float32')}
  np.testing.assert_array_equal(terms, expected)


@pytest.mark.parametrize(
  ('local_batch', 'block_size', 'message'),
  [
    (
      12,
      4,
      r'blocks of 4 .* do not divide the 12 .*block_size = 1, 2, 3, 6',
    ),
    (7, 1, 'use an even number of images on each device'),
    (8, 0, 'blocks of 0 images'),
  ],
)
def test_blocks_that_do_not_divide_the_batch(local_batch, block_size, message):
  with pytest.raises(ValueError, match=message):
    pairs.estimate(_views(2, local_batch), KERNELS[0], block_size=block_size)


def test_views_of_different_batches():
  with pytest.raises(AssertionError):
    pairs.estimate([_views(2, 8), _views(2, 4)], KERNELS[0], block_size=2)
