"""The changes of the step that are measured: they compute the same."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import step_variants
from sslhsic.networks import layers, mixed_precision


def _loss_and_gradients(variant: str):
  # What a convolution in bfloat16 gives: each variant sees the same numbers.
  x = jax.random.normal(jax.random.key(0), (4, 5, 5, 3), jnp.bfloat16)
  weights = jax.random.normal(jax.random.key(1), x.shape)

  @hk.transform_with_state
  def network(x):
    y = layers.batch_norm(x, is_training=True, axis_name=None, name='norm')
    return jax.nn.relu(y)

  def loss(params, state, x):
    y, state = network.apply(params, state, None, x)
    return (y * weights).sum(), state

  with (
    step_variants.VARIANTS[variant](),
    mixed_precision.policy('bfloat16'),
    jax.numpy_dtype_promotion('standard'),
  ):
    params, state = network.init(None, x)
    return jax.jit(jax.value_and_grad(loss, (0, 2), has_aux=True))(params, state, x)


@pytest.mark.parametrize('variant', step_variants.VARIANTS)
def test_variants_compute_the_same(variant):
  expected, found = _loss_and_gradients('none'), _loss_and_gradients(variant)
  rough = 'in bfloat16' in variant
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      np.float32(a), np.float32(b), rtol=0.05, atol=0.05 if rough else 0.01
    ),
    expected,
    found,
  )
