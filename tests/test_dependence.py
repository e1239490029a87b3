"""Dependence of two variables against formulas, SciPy and known invariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model, metrics

from sslhsic import dependence, kernels

N = 32
SCALE = 1.3


@pytest.fixture(scope='module')
def samples():
  """Features x and y [n, d] that depend on each other, and labels [n] of x."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(N, 3)).astype(np.float32)
  y = (np.sin(2 * x[:, :2]) + 0.5 * rng.normal(size=(N, 2)) + 5).astype(np.float32)
  labels = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 1)
  return x, y, labels


def _gaussian(x, scale=SCALE):
  return metrics.pairwise.rbf_kernel(x, gamma=1 / (2 * scale**2))


def _one_hot(labels):
  return np.eye(3)[labels]


def _biased(gram_x, gram_y):
  """Tr(KHLH)/n² (Gretton et al., 2005)."""
  n = len(gram_x)
  centring = np.eye(n) - 1 / n
  return np.trace(gram_x @ centring @ gram_y @ centring) / n**2


def _unbiased(gram_x, gram_y):
  """Equation 5 of Song et al. (2012)."""
  n = len(gram_x)
  x, y = (gram - np.diag(np.diag(gram)) for gram in (gram_x, gram_y))
  ones = np.ones(n)
  return (
    np.trace(x @ y)
    + (ones @ x @ ones) * (ones @ y @ ones) / ((n - 1) * (n - 2))
    - 2 / (n - 2) * (ones @ x @ y @ ones)
  ) / (n * (n - 3))


def _sides(samples):
  """The second variable: what is passed, its kernel, and its Gram matrix."""
  _, y, labels = samples
  return {
    'features': (y, kernels.Gaussian(2 * SCALE), _gaussian(y, 2 * SCALE)),
    'labels': (labels, kernels.Linear(), _one_hot(labels) @ _one_hot(labels).T),
  }


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('side', ['features', 'labels'])
def test_hsic_and_cka_are_their_definitions(samples, side, unbiased):
  x = samples[0]
  y, kernel_y, gram_y = _sides(samples)[side]
  gram_x = _gaussian(x)

  @jax.jit
  def measure(x, y):
    settings = x, y, kernels.Gaussian(SCALE), kernel_y
    return (
      dependence.hsic(*settings, unbiased=unbiased),
      dependence.cka(*settings, unbiased=unbiased),
    )

  found, alignment = measure(x, y)
  of = _unbiased if unbiased else _biased
  expected = of(gram_x, gram_y)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  expected /= np.sqrt(of(gram_x, gram_x) * of(gram_y, gram_y))
  np.testing.assert_allclose(alignment, expected, rtol=1e-4)


def test_unbiased_estimator_by_hand():
  """Labels (0, 0, 1, 1) for both: K̃ has the pairs (1, 2) and (3, 4).

  Tr(K̃L̃) = 4, 1ᵀK̃1 = 4, 1ᵀK̃L̃1 = 4, n = 4: (4 + 16/6 − 4)/4 = 2/3.
  """
  labels = jnp.array([0, 0, 1, 1])
  found = dependence.hsic(labels, labels, unbiased=True)
  np.testing.assert_allclose(found, 2 / 3, rtol=1e-6)
  with pytest.raises(ValueError, match='3 samples; the unbiased estimator needs 4'):
    dependence.hsic(labels[:3], labels[:3], unbiased=True)


def test_linear_cka_is_that_of_kornblith_and_ignores_rotation_scale_and_origin(samples):
  x, y, _ = samples
  centre = lambda z: z - z.mean(axis=0)
  norm = lambda x, y: np.linalg.norm(centre(x).T @ centre(y))
  expected = norm(x, y) ** 2 / (norm(x, x) * norm(y, y))
  rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
  moved = (3 * x @ rotation + 100).astype(np.float32)
  cka = jax.jit(functools.partial(dependence.cka, unbiased=False))
  np.testing.assert_allclose(cka(x, y), expected, rtol=1e-4)
  np.testing.assert_allclose(cka(moved, y), expected, rtol=1e-3)
  np.testing.assert_allclose(cka(x, moved), 1, rtol=1e-4)
  assert np.isnan(cka(jnp.ones_like(x), y))


def test_unbiased_hsic_of_independent_samples_has_mean_zero(samples):
  """So has the mean over blocks; the biased one has not."""
  del samples
  x, y = jax.random.normal(jax.random.key(0), [2, 300, N, 2])
  kernel = kernels.Gaussian(1.0)

  @jax.jit
  @jax.vmap
  def measure(x, y):
    settings = x, y, kernel, kernel
    return (
      dependence.hsic(*settings, unbiased=True),
      dependence.block_hsic(*settings, block_size=8),
      dependence.hsic(*settings),
    )

  unbiased, blocks, biased = map(np.asarray, measure(x, y))
  for values in (unbiased, blocks):
    assert abs(values.mean()) < 3 * values.std() / 300**0.5
  assert biased.mean() > 10 * biased.std() / 300**0.5


def test_block_hsic_is_the_mean_of_the_unbiased_one_over_blocks(samples):
  x, _, labels = samples
  found = dependence.block_hsic(x, labels, kernels.Gaussian(SCALE), block_size=8)
  one_hot = _one_hot(labels)
  expected = [
    _unbiased(_gaussian(x[rows]), one_hot[rows] @ one_hot[rows].T)
    for rows in np.split(np.arange(N), 4)
  ]
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-4)
  with pytest.raises(ValueError, match='use 4 or more, and a divisor'):
    dependence.block_hsic(x, labels, block_size=5)


def test_p_value_is_that_of_scipy(samples):
  x, y, _ = samples
  y = np.concatenate([y, y])[3 : N + 3]  # Another order: almost independent.
  found = jax.jit(dependence.permutation_test, static_argnames='num_permutations')(
    jax.random.key(0), x, y, num_permutations=999
  )
  gram_x, gram_y = x @ x.T, y @ y.T

  def statistic(order):
    order = order.astype(int)
    return _biased(gram_x, gram_y[np.ix_(order, order)])

  expected = stats.permutation_test(
    (np.arange(N),),
    statistic,
    permutation_type='pairings',
    n_resamples=999,
    alternative='greater',
    rng=np.random.default_rng(0),
    vectorized=False,
  )
  np.testing.assert_allclose(found.statistic, expected.statistic, rtol=1e-4)
  assert 0.1 < found.p_value < 0.9
  # Two standard deviations of the difference of two estimates.
  assert abs(found.p_value - expected.pvalue) < 2 * (0.5 / 999) ** 0.5
  not_smaller = np.sum(found.permuted >= found.statistic)
  np.testing.assert_allclose(found.p_value, (1 + not_smaller) / 1000, rtol=1e-6)


def test_p_values_at_their_ends(samples):
  x = samples[0]
  test = functools.partial(dependence.permutation_test, num_permutations=49)
  assert test(jax.random.key(0), x, x).p_value == np.float32(1 / 50)
  # All permutations give the same value, up to rounding.
  assert test(jax.random.key(0), x, jnp.zeros(N, jnp.int32)).p_value == 1


def _conditional(samples, heldout, ridge):
  """CIRCE's residual kernel, from feature maps in place of kernels of kernels."""
  x, a, y = samples
  heldout_a, heldout_y = heldout
  regression = linear_model.Ridge(alpha=ridge, fit_intercept=False)
  regression.fit(_one_hot(heldout_y), heldout_a)
  residuals = a - regression.predict(_one_hot(y))
  gram_y = _one_hot(y) @ _one_hot(y).T
  return _gaussian(x), (residuals @ residuals.T) * gram_y


@pytest.mark.parametrize('unbiased', [False, True])
def test_conditional_hsic_is_that_of_residuals_of_a_ridge_regression(samples, unbiased):
  x, a, labels = samples
  heldout = dependence.Heldout(a[::-2] - 1, labels[::2])
  found = jax.jit(dependence.conditional_hsic, static_argnames=('ridge', 'unbiased'))(
    x, a, labels, heldout, kernels.Gaussian(SCALE), ridge=0.7, unbiased=unbiased
  )
  grams = _conditional((x, a, labels), heldout, 0.7)
  expected = (_unbiased if unbiased else _biased)(*grams)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_conditional_hsic_is_small_where_the_label_explains_the_dependence():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 300)
  noise = rng.normal(size=(2, 300, 1))
  a, z = (labels[:, None] + noise).astype(np.float32)
  first, second = slice(0, 150), slice(150, 300)
  heldout = dependence.Heldout(a[first], labels[first])

  @jax.jit
  def both(z):
    rest = a[second], labels[second]
    given = dependence.conditional_hsic(z, *rest, heldout, ridge=1e-3, unbiased=True)
    return given, dependence.hsic(z, rest[0], unbiased=True)

  given, plain = both(z[second])
  assert plain > 0.2 > 10 * abs(given)
  # It is large where Z has A's own noise.
  given, _ = both(a[second])
  assert given > 0.2
  with pytest.raises(ValueError, match='ridge is 0; use a positive number'):
    dependence.conditional_hsic(z, a, labels, heldout, ridge=0)


def test_median_scale_is_the_median_distance(samples):
  x = samples[0]
  distances = metrics.pairwise_distances(x)[np.triu_indices(N, 1)]
  found = dependence.median_scale(x)
  np.testing.assert_allclose(found, np.median(distances), rtol=1e-5)
  distances = metrics.pairwise_distances(x[::4])[np.triu_indices(N // 4, 1)]
  found = dependence.median_scale(x, max_samples=8)
  np.testing.assert_allclose(found, np.median(distances), rtol=1e-5)


def test_median_scale_is_of_unequal_samples():
  x = np.concatenate([np.zeros((20, 1)), [[0.1], [3], [7]]]).astype(np.float32)
  distances = metrics.pairwise_distances(x)[np.triu_indices(len(x), 1)]
  expected = np.median(distances[distances > 0])
  np.testing.assert_allclose(dependence.median_scale(x), expected, rtol=1e-5)
  assert dependence.median_scale(np.full((5, 3), 0.1, np.float32)) == 0


def test_values_and_gradients_are_equal_on_any_number_of_devices(samples):
  x, y, labels = samples
  heldout = dependence.Heldout(y[:6], labels[:6])

  def measures(x, y, labels, axis_name=None):
    kernel = kernels.Gaussian(dependence.median_scale(x, axis_name=axis_name))
    settings = {'axis_name': axis_name}
    both = x, y, kernel, kernels.Linear()
    test = dependence.permutation_test(
      jax.random.key(0), *both, num_permutations=5, **settings
    )
    return {
      'cka': dependence.cka(x, labels, kernel, unbiased=True, **settings),
      'blocks': dependence.block_hsic(*both, block_size=4, **settings),
      'conditional': dependence.conditional_hsic(
        x, y, labels, heldout, kernel, ridge=0.1, **settings
      ),
    }, {'statistic': test.statistic, 'permuted': test.permuted.sum()}

  def value_and_gradient(x, y, labels, axis_name=None):
    def total(x):
      found, of_test = measures(x, y, labels, axis_name)
      return sum(found.values()), found | of_test

    gradient, found = jax.grad(total, has_aux=True)(x)
    return found, gradient

  values, gradient = jax.jit(value_and_gradient)(x, y, labels)
  mapped = jax.pmap(
    functools.partial(value_and_gradient, axis_name='i'),
    axis_name='i',
    devices=jax.devices()[:4],
  )
  spread = lambda x: x.reshape(4, -1, *x.shape[1:])
  on_devices, gradients = mapped(spread(x), spread(y), spread(labels))
  for name, value in values.items():
    np.testing.assert_allclose(on_devices[name], np.full(4, value), rtol=1e-4)
  # Each device has the gradient of four equal results by its own samples.
  error = np.linalg.norm(gradients.reshape(gradient.shape) / 4 - gradient)
  assert error <= 1e-4 * np.linalg.norm(gradient)


@pytest.mark.parametrize(
  ('x', 'y'),
  [((4, 2), (3, 2)), ((4,), (4, 2)), ((4, 2, 1), (4, 2))],
)
def test_shapes_that_cannot_be(x, y):
  with pytest.raises(AssertionError):
    dependence.hsic(jnp.zeros(x), jnp.zeros(y))
