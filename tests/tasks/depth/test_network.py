"""The decoder of depths against NumPy."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from sslhsic.tasks.depth import network as network_lib


def _transform(function):
  return hk.without_apply_rng(hk.transform_with_state(function))


def _interleaved(params, x, prefix):
  """A 5×5 convolution of x [h, w, c] with zeros between its pixels, by SciPy."""
  h, w, c = x.shape
  spread = np.zeros((2 * h, 2 * w, c))
  spread[::2, ::2] = x
  channels = params[f'{prefix}_00']['w'].shape[-1]
  kernel = np.zeros((5, 5, c, channels))
  # Even pixels of the result see weights at even places of the kernel, odd at odd.
  for row in (0, 1):
    for column in (0, 1):
      kernel[row::2, column::2] = params[f'{prefix}_{row}{column}']['w']
  return np.stack(
    [
      sum(
        signal.correlate(spread[..., i], kernel[..., i, j], mode='same')
        for i in range(c)
      )
      for j in range(channels)
    ],
    axis=-1,
  )


@pytest.fixture(scope='module')
def block():
  """An up-projection of [3, 4, 2] to [6, 8, 3], and its random parameters."""
  forward = _transform(
    lambda x, is_training: network_lib.UpProjection(3, axis_name=None, name='block')(
      x, is_training=is_training
    )
  )
  x = jax.random.normal(jax.random.key(0), (1, 3, 4, 2))
  params, state = forward.init(jax.random.key(1), x, True)
  keys = iter(jax.random.split(jax.random.key(2), 100))
  draw = lambda p: jax.random.normal(next(keys), p.shape)
  return jax.tree.map(draw, params), state, x, forward.apply


def test_up_projection_equals_numpy(block):
  params, state, x, apply = block
  output, _ = jax.jit(apply, static_argnums=3)(params, state, x, True)
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), dict(params))
  params = {name.removeprefix('block/'): leaves for name, leaves in params.items()}

  def norm(x, name):
    scaled = (x - x.mean(axis=(0, 1))) / np.sqrt(x.var(axis=(0, 1)) + 1e-5)
    return scaled * params[name]['scale'][0, 0, 0] + params[name]['offset'][0, 0, 0]

  x = np.asarray(x[0], np.float64)
  shortcut = norm(_interleaved(params, x, 'shortcut_conv'), 'shortcut_batchnorm')
  y = np.maximum(norm(_interleaved(params, x, 'conv_0'), 'batchnorm_0'), 0)
  kernel = params['conv_1']['w']
  y = np.stack(
    [
      sum(signal.correlate(y[..., i], kernel[..., i, j], mode='same') for i in range(3))
      for j in range(3)
    ],
    axis=-1,
  )
  expected = np.maximum(norm(y, 'batchnorm_1') + shortcut, 0)
  np.testing.assert_allclose(output[0], expected, rtol=1e-4, atol=1e-4)


def test_depths_have_the_size_of_the_image():
  network = network_lib.create(
    encoder='resnet50',
    encoder_options={},
    freeze_batch_norm=False,
    channels=(512, 256, 128, 64),
  )
  images = jax.ShapeDtypeStruct((2, 228, 304, 3), jnp.float32)
  init = lambda rng, images: network.init(rng, images, True)
  params, state = jax.eval_shape(init, jax.random.key(0), images)
  assert params['depth_decoder/~/block_0/conv_0_01'.replace('~/', '')]['w'].shape == (
    3,
    2,
    2048,
    512,
  )
  forward = lambda *args: network.apply(*args, True)
  depths, _ = jax.eval_shape(forward, params, state, None, images)
  assert (depths.shape, depths.dtype) == ((2, 228, 304), jnp.float32)
  assert 'f32[2,128,160,1]' in str(jax.make_jaxpr(forward)(params, state, None, images))


def test_more_up_projections_than_the_encoder_has_strides_are_refused():
  network = network_lib.create(
    encoder='resnet_digits',
    encoder_options={},
    freeze_batch_norm=False,
    channels=(4, 4),
  )
  with pytest.raises(ValueError, match='2 up-projections after an encoder of stride 2'):
    jax.eval_shape(
      lambda rng: network.init(rng, jnp.zeros((1, 8, 8, 1)), True), jax.random.key(0)
    )
