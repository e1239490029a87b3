"""The fully convolutional network: shapes, resolution, what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.tasks.segmentation import network as network_lib

TINY = {'blocks_per_group': (1, 1), 'channels_per_group': (4, 8), 'stem': 'small'}


def _network(**changes):
  settings = {
    'encoder': 'resnet18',
    'encoder_options': TINY,
    'freeze_batch_norm': False,
    'num_classes': 5,
    'channels': 6,
    'dilation': 2,
  }
  return network_lib.create(**settings | changes)


@pytest.fixture(scope='module')
def values():
  network, images = _network(), jax.random.normal(jax.random.key(1), (2, 11, 8, 3))
  return images, *jax.jit(network.init, static_argnums=2)(
    jax.random.key(0), images, True
  )


def test_every_pixel_has_logits_and_the_encoder_its_names(values):
  images, params, state = values
  logits, _ = _network().apply(params, state, None, images, False)
  assert (logits.shape, logits.dtype) == ((2, 11, 8, 5), jnp.float32)
  assert {name.split('/')[0] for name in params} == {'encoder', 'fcn_head'}
  assert params['fcn_head/conv_0']['w'].shape == (3, 3, 8, 6)
  half, _ = _network(precision='bfloat16').apply(params, state, None, images, False)
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(half, logits, atol=0.1)
  assert not np.array_equal(half, logits)


@pytest.mark.parametrize('freeze', [True, False])
def test_frozen_batch_norm_keeps_the_statistics_of_the_encoder(values, freeze):
  images, params, state = values
  _, after = _network(freeze_batch_norm=freeze).apply(params, state, None, images, True)
  changed = {
    module.split('/')[0]
    for module, leaves in state.items()
    if not np.array_equal(leaves['average'], after[module]['average'])
  }
  assert changed == ({'fcn_head'} if freeze else {'encoder', 'fcn_head'})


def test_published_size_has_a_stride_of_sixteen():
  network = _network(
    encoder='resnet50',
    encoder_options={'output_stride': 16},
    num_classes=21,
    channels=256,
    dilation=6,
  )
  images = jax.ShapeDtypeStruct((2, 513, 513, 3), jnp.float32)
  init = lambda rng, images: network.init(rng, images, True)
  params, state = jax.eval_shape(init, jax.random.key(0), images)
  assert params['fcn_head/conv_0']['w'].shape == (3, 3, 2048, 256)
  forward = lambda *args: network.apply(*args, True)
  logits, _ = jax.eval_shape(forward, params, state, None, images)
  assert logits.shape == (2, 513, 513, 21)
  program = str(jax.make_jaxpr(forward)(params, state, None, images))
  assert 'f32[2,33,33,2048]' in program
