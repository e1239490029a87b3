"""Microbatches: how they are taken, and the gradient through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import collectives, microbatches


def test_microbatch_is_the_same_images_on_any_number_of_devices():
  rows = np.arange(24)
  of_one = microbatches.split(rows, 3)
  of_two = np.concatenate([microbatches.split(x, 3) for x in np.split(rows, 2)], axis=1)
  np.testing.assert_array_equal(of_one, of_two)
  np.testing.assert_array_equal(of_one[1], rows[1::3])
  np.testing.assert_array_equal(microbatches.join(of_one), rows)


def _forward(params, count, x):
  return {'feature': jnp.tanh(jnp.matmul(x, params))}, count + 1


@pytest.mark.parametrize('count', [1, 4])
def test_gradient_is_that_of_back_propagation(count):
  """Of a function that is no sum over images; the state is updated once for each."""
  x = jax.random.normal(jax.random.key(0), [12, 5])
  params = jax.random.normal(jax.random.key(1), [5, 3])
  value = lambda z: jnp.linalg.norm(jnp.matmul(z['feature'].T, jnp.cos(z['feature'])))

  @jax.jit
  def gradient(params, x):
    features, state, pullback = microbatches.features_and_pullback(
      _forward, params, jnp.int32(0), microbatches.split(x, count)
    )
    return pullback(jax.grad(value)(features)), features, state

  actual, features, state = gradient(params, x)
  expected = jax.grad(lambda params: value(_forward(params, 0, x)[0]))(params)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  np.testing.assert_allclose(
    features['feature'], _forward(params, 0, x)[0]['feature'], rtol=1e-6
  )
  assert state == count


@pytest.mark.parametrize('count', [0, -1, 5])
def test_microbatches_that_do_not_divide_are_refused(count):
  message = (
    rf'8 images per device do not .* {count} microbatches; use one of 1, 2, 4, 8'
  )
  with pytest.raises(ValueError, match=message):
    microbatches.check(8, count)


def _losses(params, count, part):
  """Squares in parts, of which as many count as an image says."""
  z = jnp.tanh(jnp.matmul(part['x'], params))
  weights = (jnp.arange(3)[None] < part['num'][:, None]).astype(jnp.float32)
  return collectives.Weighted(jnp.square(z), weights), count + 1


def _mean(losses, axis_name=None):
  loss = losses.mean(axis_name)
  return loss, {'loss': loss}


@pytest.mark.parametrize(('count', 'devices'), [(1, 1), (4, 1), (2, 2)])
def test_gradient_of_a_weighted_mean_is_that_of_the_whole_batch(count, devices):
  """Microbatches and devices have different sums of weights."""
  batch = {
    'x': jax.random.normal(jax.random.key(0), [8, 5]),
    'num': jnp.arange(8) % 4,
  }
  params = jax.random.normal(jax.random.key(1), [5, 3])

  def gradients(batch):
    gradient, state, scalars = microbatches.gradients(
      _losses,
      lambda x: _mean(x, 'i'),
      params,
      jnp.int32(0),
      microbatches.split(batch, count),
    )
    return jax.lax.pmean(gradient, 'i'), state, scalars

  share = lambda x: x.reshape(devices, -1, *x.shape[1:])
  found = jax.pmap(gradients, axis_name='i')(jax.tree.map(share, batch))
  gradient, state, scalars = jax.tree.map(lambda x: x[0], found)
  counts = np.arange(3) < np.arange(8)[:, None] % 4

  def expected(params):
    squares = jnp.square(jnp.tanh(batch['x'] @ params))
    return jnp.mean(squares[counts])

  loss, by_params = jax.value_and_grad(expected)(params)
  np.testing.assert_allclose(gradient, by_params, rtol=1e-5)
  np.testing.assert_allclose(scalars['loss'], loss, rtol=1e-6)
  assert state == count


@pytest.mark.parametrize(('is_mean', 'num_products'), [(True, 2), (False, 3)])
def test_first_pass_is_left_out_for_a_mean(is_mean, num_products):
  """Of the products of the step: forward, the gradient, and the first pass."""

  def loss(losses):
    value, scalars = _mean(losses)
    return (value if is_mean else value**2), scalars

  batch = {'x': jnp.ones((8, 5)), 'num': jnp.ones(8, jnp.int32)}
  step = jax.jit(
    lambda params, batch: microbatches.gradients(
      _losses, loss, params, jnp.int32(0), microbatches.split(batch, 4)
    )
  )
  text = step.lower(jnp.ones((5, 3)), batch).compile().as_text()
  assert text.count(' dot(') == num_products
