"""Precision policies: bfloat16 inside, float32 in sums and at the doors."""

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.networks import layers, mixed_precision
from sslhsic.pretraining import model


def _online(precision):
  return model.create(
    encoder='resnet18',
    encoder_options={'blocks_per_group': (1, 1), 'channels_per_group': (4, 8)},
    head={'hidden_size': 16, 'output_size': 8},
    with_target=True,
    num_classes=3,
    precision=precision,
  ).online


def _types(tree):
  return {str(x.dtype) for x in jax.tree.leaves(tree)}


def _equations(program):
  """Those of a program and of the programs within it."""
  for equation in program.eqns:
    yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from _equations(inner)


def test_network_computes_in_bfloat16_between_float32_doors():
  images = jax.random.normal(jax.random.key(0), [4, 8, 8, 3])
  init = lambda rng: _online('bfloat16').init(rng, images, True)
  params, state = jax.jit(init)(jax.random.key(1))
  assert _types(params) == {'float32'}
  apply = lambda precision, params: _online(precision).apply(
    params, state, None, images, True
  )
  program = jax.make_jaxpr(lambda params: apply('bfloat16', params))(params)
  products = [
    {str(x.aval.dtype) for x in equation.invars}
    for equation in _equations(program.jaxpr)
    if equation.primitive.name in ('conv_general_dilated', 'dot_general')
  ]
  # All but that of the monitoring classifier.
  assert products == [{'bfloat16'}] * (len(products) - 1) + [{'float32'}]
  outputs, after = jax.jit(lambda params: apply('bfloat16', params))(params)
  assert _types(outputs) == {'float32'}
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  expected, _ = jax.jit(lambda params: apply('float32', params))(params)
  for x, y in zip(outputs, expected, strict=True):
    assert 1e-4 < np.linalg.norm(x - y) / np.linalg.norm(y) < 0.1


def test_batch_statistics_are_formed_in_float32():
  """In bfloat16, E x² − (E x)² = 65 − 64 would be off by up to a half."""

  @hk.transform_with_state
  @mixed_precision.policy('bfloat16')
  def normalize(x):
    return layers.batch_norm(x, is_training=True, axis_name=None, name='norm')

  x = 8 + jax.random.normal(jax.random.key(0), [512, 4])
  x = x.astype(jnp.bfloat16)
  params, state = jax.jit(normalize.init)(None, x)
  output, state = jax.jit(normalize.apply)(params, state, None, x)
  assert output.dtype == jnp.bfloat16
  rows = np.asarray(x, np.float64)
  average = lambda name: state[f'norm/~/{name}_ema']['average'][0]
  np.testing.assert_allclose(average('mean'), rows.mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(average('var'), rows.var(axis=0), rtol=1e-4)
  expected = (rows - rows.mean(axis=0)) / rows.std(axis=0)
  np.testing.assert_allclose(np.asarray(output, np.float64), expected, atol=0.02)


def test_unknown_precision_is_refused():
  with pytest.raises(
    ValueError, match=r"unknown precision 'float16'; use one of float32, bfloat16"
  ):
    _online('float16')
