"""The projector and predictor against NumPy."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import networks


def forward(*, is_training=True, axis_name=None):
  def apply(x):
    mlp = networks.MLP(hidden_size=6, output_size=3, axis_name=axis_name)
    return mlp(x, is_training=is_training)

  return hk.without_apply_rng(hk.transform_with_state(apply))


def random_weights(x):
  params, state = forward().init(jax.random.key(0), x)
  keys = iter(jax.random.split(jax.random.key(1), 5))
  params = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), params)
  return params, state


def expected_output(params, x, mean=None, variance=None):
  """The head in NumPy; batch statistics where none are given."""
  hidden = x @ np.asarray(params['mlp/linear_0']['w'])
  hidden = hidden + np.asarray(params['mlp/linear_0']['b'])
  mean = hidden.mean(axis=0) if mean is None else mean
  variance = hidden.var(axis=0) if variance is None else variance
  hidden = (hidden - mean) / np.sqrt(variance + 1e-5)
  norm = params['mlp/batchnorm']
  hidden = hidden * np.asarray(norm['scale']) + np.asarray(norm['offset'])
  return np.maximum(hidden, 0) @ np.asarray(params['mlp/linear_1']['w'])


def test_parameters_are_those_of_the_paper():
  params, _ = random_weights(jnp.ones((2, 5)))
  assert jax.tree.map(jnp.shape, dict(params)) == {
    'mlp/linear_0': {'w': (5, 6), 'b': (6,)},
    'mlp/batchnorm': {'scale': (1, 6), 'offset': (1, 6)},
    'mlp/linear_1': {'w': (6, 3)},
  }


def test_training_equals_numpy():
  x = jax.random.normal(jax.random.key(2), (7, 5))
  params, state = random_weights(x)
  output, _ = forward().apply(params, state, x)
  np.testing.assert_allclose(
    output, expected_output(params, np.asarray(x)), rtol=1e-4, atol=1e-5
  )


def test_evaluation_uses_averages_of_decay_nine_tenths():
  batches = jax.random.normal(jax.random.key(2), (2, 7, 5))
  params, state = random_weights(batches[0])
  for batch in batches:
    _, state = forward().apply(params, state, batch)
  first = params['mlp/linear_0']
  hidden = np.asarray(batches) @ np.asarray(first['w']) + np.asarray(first['b'])
  # The average of two steps weighs them 0.9 to 1: (0.09, 0.1) / (1 - 0.9²).
  average = lambda a: (0.09 * a[0] + 0.1 * a[1]) / 0.19
  mean, variance = average(hidden.mean(axis=1)), average(hidden.var(axis=1))
  output, unchanged = forward(is_training=False).apply(params, state, batches[0])
  expected = expected_output(params, np.asarray(batches[0]), mean, variance)
  np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, unchanged, state)


def test_four_devices_equal_one():
  x = jax.random.normal(jax.random.key(2), (8, 5))
  params, state = random_weights(x)

  def gradient(axis_name, params, x):
    apply = forward(axis_name=axis_name).apply
    loss = lambda p: jnp.mean(jnp.sin(apply(p, state, x)[0]))
    output, gradients = apply(params, state, x)[0], jax.grad(loss)(params)
    return output, jax.lax.pmean(gradients, axis_name) if axis_name else gradients

  output, gradients = gradient(None, params, x)
  sharded_output, sharded_gradients = jax.pmap(
    functools.partial(gradient, 'i'),
    axis_name='i',
    in_axes=(None, 0),
    devices=jax.devices()[:4],
  )(params, x.reshape(4, 2, 5))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  close(sharded_output.reshape(8, 3), output)
  jax.tree.map(close, jax.tree.map(lambda g: g[0], sharded_gradients), gradients)
