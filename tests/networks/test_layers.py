"""Convolution against Haiku; batch norm of a part of the positions, max-pooling."""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.networks import layers

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (4, 5, 6, 2)).astype(np.float32)
CONTENT = np.array([[5, 6], [2, 3], [4, 1], [0, 0]], np.int32)
SCALE, OFFSET = np.array([2, -1], np.float32), np.array([0.5, 3], np.float32)


def _norm(axis_name=None):
  def forward(x, content, is_training):
    mask = layers.content_mask(x, content)
    return layers.batch_norm(
      x, is_training=is_training, axis_name=axis_name, mask=mask, name='norm'
    )

  return hk.without_apply_rng(hk.transform_with_state(forward))


@pytest.fixture(scope='module')
def values():
  """Parameters, and a state that is not initial."""
  params, state = _norm().init(jax.random.key(0), X, CONTENT, True)
  params['norm'] = {
    'scale': SCALE.reshape(1, 1, 1, 2),
    'offset': OFFSET.reshape(1, 1, 1, 2),
  }
  state = jax.tree.map(lambda x: jnp.full_like(x, 3), state)
  return params, state


def _expected(mean, variance):
  """The content of X normalised, and 0 around it."""
  normalised = (X - mean) / np.sqrt(variance + 1e-5) * SCALE + OFFSET
  result = np.zeros_like(X)
  for i, (rows, columns) in enumerate(CONTENT):
    result[i, :rows, :columns] = normalised[i, :rows, :columns]
  return result


def _pixels_of_content():
  return np.concatenate(
    [x[:r, :c].reshape(-1, 2) for x, (r, c) in zip(X, CONTENT, strict=True)]
  )


@pytest.mark.parametrize('num_devices', [1, 4])
def test_statistics_are_those_of_the_content_of_all_devices(values, num_devices):
  params, state = values
  split = lambda x: x.reshape(num_devices, -1, *x.shape[1:])
  apply = functools.partial(_norm('i').apply, is_training=True)
  result, after = jax.pmap(
    apply,
    axis_name='i',
    in_axes=(None, None, 0, 0),
    devices=jax.devices()[:num_devices],
  )(params, state, split(X), split(CONTENT))
  content = _pixels_of_content()
  mean, variance = content.mean(axis=0), content.var(axis=0)
  np.testing.assert_allclose(
    result.reshape(X.shape), _expected(mean, variance), rtol=1e-4, atol=1e-5
  )
  # A moving average with Adam's correction, of 3 steps before this one.
  for name, batch in (('mean_ema', mean), ('var_ema', variance)):
    found = after[f'norm/~/{name}']['average']
    average = (0.9 * 3 + 0.1 * batch) / (1 - 0.9**4)
    np.testing.assert_allclose(found.reshape(-1, 2)[-1], average, rtol=1e-5)


def test_stored_statistics_are_used_in_evaluation(values):
  params, state = values
  result, after = _norm().apply(params, state, X, CONTENT, False)
  np.testing.assert_allclose(result, _expected(3.0, 3.0), rtol=1e-5, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, after, state)


def _gradients(apply, params, x, weights, num_devices):
  """Of Σ weights·batch norm: by parameters and by x."""

  def loss(params, x, weights):
    return (apply(params, x) * weights).sum()

  split = lambda x: x.reshape(num_devices, -1, *x.shape[1:])
  of_params, of_x = jax.pmap(
    jax.grad(loss, (0, 1)),
    axis_name='i',
    in_axes=(None, 0, 0),
    devices=jax.devices()[:num_devices],
  )(params, split(x), split(weights))
  return jax.tree.map(lambda x: x.sum(axis=0), of_params), of_x.reshape(x.shape)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_gradient_is_the_derived_one(values, num_devices):
  """That which JAX derives of Haiku's batch norm."""
  params, state = values
  weights = RNG.normal(size=X.shape).astype(np.float32)

  def haikus(x):
    layer = hk.BatchNorm(True, True, 0.9, cross_replica_axis='i', name='norm')
    with jax.numpy_dtype_promotion('standard'):
      return layer(x, True)

  ours = lambda x: layers.batch_norm(x, is_training=True, axis_name='i', name='norm')
  found, expected = (
    _gradients(
      lambda params, x, f=f: hk.transform_with_state(f).apply(params, state, None, x)[
        0
      ],
      params,
      X,
      weights,
      num_devices,
    )
    for f in (ours, haikus)
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected
  )


@pytest.mark.parametrize('num_devices', [1, 4])
def test_gradient_is_that_of_the_content(values, num_devices):
  params, state = values
  weights = RNG.normal(size=X.shape).astype(np.float32)
  is_content = np.array(layers.content_mask(X, CONTENT))
  is_content = np.broadcast_to(is_content, X.shape)[..., 0]

  def on_content(params, pixels):
    """Batch norm of pixels [k, c] in a list."""
    mean, variance = pixels.mean(axis=0, keepdims=True), pixels.var(0, keepdims=True)
    scale, offset = (params['norm'][x].reshape(1, 2) for x in ('scale', 'offset'))
    return (pixels - mean) / jnp.sqrt(variance + 1e-5) * scale + offset

  loss = lambda params, x: (on_content(params, x) * weights[is_content]).sum()
  of_params, of_pixels = jax.grad(loss, (0, 1))(params, X[is_content])
  expected = np.zeros_like(X)
  expected[is_content] = of_pixels

  # Devices differ in their content, so it travels with x.
  def apply(params, x):
    content = x[:, 0, 0, 2:].astype(jnp.int32)
    return _norm('i').apply(params, state, x[..., :2], content, True)[0]

  with_content = np.concatenate(
    [X, np.broadcast_to(CONTENT[:, None, None], X.shape)], -1
  )
  found = _gradients(apply, params, with_content, weights, num_devices)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(close, found[0], of_params)
  close(found[1][..., :2], expected)


def test_nothing_at_all_is_finite(values):
  result, after = _norm().apply(*values, X, 0 * CONTENT, True)
  assert not np.any(result)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after))


def test_equal_values_are_finite():
  # As of a collapsed encoder: the mean of their squares is rounded to below the square
  # of their mean, by more than what is added to the variance.
  x = np.broadcast_to(np.linspace(100, 5000, 64, dtype=np.float32), (24, 64))

  def forward(x):
    return layers.batch_norm(x, is_training=True, axis_name=None, name='norm')

  norm = hk.without_apply_rng(hk.transform_with_state(forward))
  params, state = norm.init(jax.random.key(0), x)
  (result, state), of_x = jax.vjp(lambda x: norm.apply(params, state, x), x)
  assert np.all(np.abs(result) < 1)
  assert np.all(state['norm/~/var_ema']['average'] >= 0)
  (gradient,) = of_x((np.ones_like(x), jax.tree.map(np.zeros_like, state)))
  assert np.all(np.isfinite(gradient))


def test_mean_is_that_of_the_content():
  found = layers.spatial_mean(X[:3], CONTENT[:3])
  expected = [
    x[:r, :c].mean(axis=(0, 1)) for x, (r, c) in zip(X[:3], CONTENT[:3], strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def _pooled(x, gradient):
  """Maxima and the gradient with respect to x, one window after another."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
  maxima, of_padded = np.zeros_like(gradient), np.zeros_like(padded)
  for n, a, b, c in np.ndindex(gradient.shape):
    window = padded[n, 2 * a : 2 * a + 3, 2 * b : 2 * b + 3, c]
    i, j = np.unravel_index(window.argmax(), window.shape)  # The first of the largest.
    maxima[n, a, b, c] = window[i, j]
    of_padded[n, 2 * a + i, 2 * b + j, c] += gradient[n, a, b, c]
  return maxima, of_padded[:, 1:-1, 1:-1]


@pytest.mark.parametrize('of_x', [layers._gathered, layers._scattered, None])
@pytest.mark.parametrize('size', [(1, 1), (1, 2), (4, 7), (8, 5)])
def test_max_pool_is_that_of_every_window(size, of_x):
  """On each platform: on a CPU the gradient is gathered, elsewhere scattered."""
  rng = np.random.default_rng(0)
  # With many equal values, also those of a rectifier.
  x = np.maximum(rng.integers(-2, 3, (3, *size, 2)), 0).astype(np.float32)
  found, backward = jax.vjp(layers.max_pool, x)
  gradient = rng.normal(size=found.shape).astype(np.float32)
  expected, of_expected = _pooled(x, gradient)
  np.testing.assert_array_equal(found, expected)
  of_found = of_x(x, gradient) if of_x else backward(gradient)[0]
  np.testing.assert_allclose(of_found, of_expected, rtol=1e-6, atol=1e-6)


def test_max_pool_keeps_the_type():
  x = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
  gradient = jax.grad(lambda x: layers.max_pool(x).sum())(x)
  assert gradient.dtype == layers.max_pool(x).dtype == jnp.bfloat16
  # The first of equal values; of the padding, none.
  np.testing.assert_array_equal(gradient[0, :, :, 0].astype(np.float32).sum(), 4)


@pytest.mark.parametrize(
  ('shape', 'channels', 'kernel_size', 'stride', 'dilation'),
  [
    ((2, 2), 5, 3, 1, 1),
    ((1, 1), 5, 3, 1, 1),
    ((4, 3), 5, 3, 2, 1),
    ((1, 4), 5, 3, 1, 2),
    ((2, 2), 5, 7, 2, 1),
    ((4, 4), 5, 4, 2, 1),
    ((4, 4), 5, 3, 2, 1),
    ((9, 8), 5, 3, 2, 1),
    ((2, 2), 5, 1, 1, 1),
  ],
)
def test_convolution_is_that_of_torch_s_padding_at_every_size(
  shape, channels, kernel_size, stride, dilation
):
  """Maps of few positions go through another program than others, see `layers`."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, *shape, 2)), jnp.float32)
  padding = dilation * (kernel_size - 1) // 2

  def ours(x):
    options = {'stride': stride, 'dilation': dilation, 'name': 'conv'}
    return layers.conv2d(x, channels, kernel_size, **options)

  def haiku_s(x):
    layer = hk.Conv2D(
      channels,
      kernel_size,
      stride=stride,
      rate=dilation,
      padding=[(padding, padding)] * 2,
      with_bias=False,
      name='conv',
    )
    return layer(x)

  found, expected = (
    hk.without_apply_rng(hk.transform(function)) for function in (ours, haiku_s)
  )
  params = found.init(jax.random.key(1), x)
  chex.assert_trees_all_equal(params, expected.init(jax.random.key(1), x))

  def value_and_gradients(function):
    value, pull = jax.vjp(jax.jit(function.apply), params, x)
    weights = jnp.arange(value.size, dtype=value.dtype).reshape(value.shape)
    return value, pull(jnp.sin(weights))

  chex.assert_trees_all_close(
    value_and_gradients(found), value_and_gradients(expected), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('side', [2, 4, 8])
def test_convolution_keeps_the_type(side):
  """Of maps and gradients, in every program."""
  rng = np.random.default_rng(0)
  convolve = hk.without_apply_rng(
    hk.transform(lambda x: layers.conv2d(x, 4, 3, stride=2, name='conv'))
  )
  x = jnp.asarray(rng.normal(size=(3, side, side, 4)), jnp.float32)
  params = convolve.init(jax.random.key(0), x)

  def sums(params, x):
    return jnp.square(convolve.apply(params, x).astype(jnp.float32)).mean()

  arguments = params, x
  halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), arguments)
  assert convolve.apply(*halves).dtype == jnp.bfloat16
  found, expected = (jax.grad(sums, (0, 1))(*of) for of in (halves, arguments))
  chex.assert_trees_all_equal_shapes_and_dtypes(found, halves)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert np.linalg.norm(x.astype(np.float32) - y) < 0.03 * np.linalg.norm(y)
