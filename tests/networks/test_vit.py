"""Vision Transformer: a direct transcription in NumPy, and what it promises."""

import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sslhsic import networks
from sslhsic.networks import mixed_precision, vit

TINY = {'patch_size': 2, 'width': 8, 'depth': 2, 'num_heads': 2, 'image_size': 8}


def _network(**options):
  def forward(images):
    features = vit.ViT(**{**TINY, **options})(images, is_training=True)
    return features.stages[0], features.embedding

  return hk.without_apply_rng(hk.transform(forward))


def _random(network, images, seed=0):
  """Parameters that are nowhere zero or one."""
  params = network.init(jax.random.key(0), images)
  rng = np.random.default_rng(seed)
  noise = lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)
  return jax.tree.map(noise, params)


def _images(height=8, width=8, n=2):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(n, height, width, 3)), jnp.float32)


def _direct(params, image, num_patches):
  """Equations 1 to 4 of Dosovitskiy et al., for one image with all tokens in place."""

  def norm(x, p):
    x = x - x.mean(axis=1, keepdims=True)
    return (
      x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6) * p['scale'] + p['offset']
    )

  def linear(x, p):
    return x @ p['w'] + p['b']

  params = jax.tree.map(np.float64, params)
  own, at = params['vit'], lambda name: params[f'vit/{name}']
  side = image.shape[0] // 2
  patches = image.reshape(side, 2, side, 2, 3).swapaxes(1, 2).reshape(num_patches, 12)
  embedding = at('patch_embedding')
  x = patches @ embedding['w'].reshape(12, 8) + embedding['b']
  x = x + own['positions'].reshape(num_patches, 8)
  x = np.concatenate([own['class_token'], own['registers'], x])
  for i in range(2):
    block = lambda name, i=i: params[f'vit/block_{i}/{name}']
    q, k, v = np.split(linear(norm(x, block('layernorm_0')), block('qkv')), 3, axis=1)
    heads = []
    for head in range(2):
      part = slice(4 * head, 4 * head + 4)
      weights = special.softmax(q[:, part] @ k[:, part].T / math.sqrt(4), axis=1)
      heads.append(weights @ v[:, part])
    x = x + linear(np.concatenate(heads, axis=1), block('projection'))
    hidden = linear(norm(x, block('layernorm_1')), block('linear_0'))
    hidden = hidden * (1 + special.erf(hidden / math.sqrt(2))) / 2
    x = x + linear(hidden, block('linear_1'))
  return norm(x, at('layernorm'))


def test_is_the_published_network():
  images = _images()
  network = _network(num_registers=3)
  params = _random(network, images)
  stage, embedding = network.apply(params, images)
  for row in range(2):
    tokens = _direct(params, np.float64(images[row]), 16)
    np.testing.assert_allclose(embedding[row], tokens[0], atol=2e-5)
    np.testing.assert_allclose(stage[row].reshape(16, 8), tokens[4:], atol=2e-5)


def test_bfloat16_is_near_float32():
  images = _images()
  network = _network()
  params = network.init(jax.random.key(0), images)
  with mixed_precision.policy('bfloat16'):
    half = network.apply(params, images)
  assert [x.dtype for x in half] == [jnp.float32] * 2
  for found, expected in zip(half, network.apply(params, images), strict=True):
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_mean_pooling_is_the_mean_of_the_stage_and_has_no_class_token():
  images = _images()
  network = _network(pooling='mean')
  params = _random(network, images)
  assert 'class_token' not in params['vit']
  stage, embedding = network.apply(params, images)
  assert stage.shape == (2, 4, 4, 8)
  np.testing.assert_allclose(embedding, stage.mean(axis=(1, 2)), atol=1e-6)


def test_frozen_embedding_of_patches_is_all_that_has_no_gradient():
  images = _images()
  network = _network(freeze_patch_embedding=True, num_registers=1)
  params = _random(network, images)
  embed = lambda params: network.apply(params, images)[1]
  np.testing.assert_array_equal(
    embed(params), _network(num_registers=1).apply(params, images)[1]
  )
  gradients = jax.grad(lambda params: jnp.sum(jnp.sin(embed(params))))(params)
  for module, leaves in gradients.items():
    for name, value in leaves.items():
      assert np.any(value) == (module != 'vit/patch_embedding'), (module, name)


@pytest.mark.parametrize('positions', vit.POSITIONS)
def test_other_sizes_run_with_the_same_parameters(positions):
  network = _network(positions=positions)
  params = _random(network, _images())
  stage, embedding = network.apply(params, _images(12, 20))
  assert stage.shape == (2, 6, 10, 8)
  assert np.all(np.isfinite(embedding))


def test_fixed_positions_are_sines_of_row_and_column():
  table = vit.sincos_positions(3, 5, 8)
  assert table.shape == (3, 5, 8)
  for y in range(3):
    for x in range(5):
      expected = [
        math.sin(y), math.sin(y / 100), math.cos(y), math.cos(y / 100),
        math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100),
      ]  # fmt: skip
      np.testing.assert_allclose(table[y, x], expected, atol=1e-6)


def test_learned_positions_are_resized_smoothly():
  """On a grid twice as fine a linear ramp of positions stays one, inside the border."""
  network = _network(depth=0)
  params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), _images()))
  slope = np.linspace(-1, 1, 8)  # Not all alike: the last normalisation centres them.
  ramp = np.arange(4.0)[:, None, None] * slope + np.linspace(1, -2, 8) ** 2
  params['vit']['positions'] = jnp.asarray(ramp.repeat(4, axis=1), jnp.float32)
  params['vit/layernorm']['scale'] += 1

  def norm(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)

  np.testing.assert_allclose(
    network.apply(params, _images())[0][0, :, 0], norm(ramp)[:, 0], atol=1e-5
  )
  finer, _ = network.apply(params, _images(16, 16))
  places = (np.arange(8)[:, None] + 0.5) / 2 - 0.5
  expected = norm(places * slope + np.linspace(1, -2, 8) ** 2)
  np.testing.assert_allclose(finer[0, 3:5, 3], expected[3:5], atol=1e-3)


def test_size_of_the_published_network():
  """timm's counts, 21,665,664 and 85,798,656, less a position of the class token."""

  def count(name):
    network = hk.transform(lambda x: networks.create(name)(x, is_training=True))
    shapes = jax.eval_shape(
      network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), 'float32')
    )
    return sum(x.size for x in jax.tree.leaves(shapes))

  assert count('vit_s16') == 21_665_664 - 384
  assert count('vit_b16') == 85_798_656 - 768


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_heads': 3}, 'width of 8 does not divide into 3 heads'),
    ({'positions': 'none'}, "unknown positions 'none'"),
    ({'pooling': 'max'}, "unknown pooling 'max'"),
    ({'image_size': 7}, 'image_size 7 is not a multiple of patch_size 2'),
    ({'patch_size': 4, 'image_size': 8}, '6×6 px do not divide into patches of 4'),
  ],
)
def test_what_does_not_fit_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    _network(**options).init(jax.random.key(0), _images(6, 6))
