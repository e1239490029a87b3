"""Microbatches: how they are taken, and the gradient through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.pretraining import microbatches


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
