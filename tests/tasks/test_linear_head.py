"""Linear heads of segmentation and depth against NumPy and OpenCV."""

import cv2
import haiku as hk
import jax
import numpy as np
import pytest

from sslhsic import networks
from sslhsic.networks import classifier
from sslhsic.tasks.depth import network as depth
from sslhsic.tasks.segmentation import network as segmentation

VIT = {
  'encoder': 'vit_digits',
  'encoder_options': {'depth': 1, 'width': 8, 'pooling': 'class', 'num_registers': 1},
  'freeze_batch_norm': True,
}


def _create(task, head='linear'):
  if task == 'segmentation':
    return segmentation.create(**VIT, num_classes=3, channels=4, dilation=1, head=head)
  return depth.create(**VIT, channels=(4,), head=head)


def _tokens(params, images):
  """Patch tokens, [n, h, w, c]."""

  def forward(images):
    network = networks.create(VIT['encoder'], **VIT['encoder_options'])
    return network(images, is_training=False).stages[-1]

  own = {name: x for name, x in params.items() if classifier.is_of_encoder(name)}
  return np.float64(hk.transform(forward).apply(own, None, images))


@pytest.mark.parametrize('task', ['segmentation', 'depth'])
def test_it_is_linear_in_the_normalised_tokens(task):
  network = _create(task)
  images = jax.random.normal(jax.random.key(1), (2, 8, 12, 1))
  params, state = jax.jit(network.init, static_argnums=2)(
    jax.random.key(0), images, True
  )
  # After one batch, the moving averages are its statistics.
  _, state = network.apply(params, state, None, images, True)
  found, _ = network.apply(params, state, None, images, False)
  found = found.reshape(2, 8, 12, -1)
  assert {name.split('/')[0] for name in params} == {'encoder', 'linear_head'}
  tokens = _tokens(params, images)
  over = (0, 1, 2)
  normalised = (tokens - tokens.mean(over)) / np.sqrt(tokens.var(over) + 1e-5)
  w, b = (np.float64(params['linear_head/linear'][name]) for name in 'wb')
  # 4×6 patches of 2 pixels.
  expected = cv2.resize(np.float32(normalised[0] @ w + b), (12, 8))
  np.testing.assert_allclose(found[0], expected.reshape(8, 12, -1), atol=1e-3)


@pytest.mark.parametrize('task', ['segmentation', 'depth'])
def test_unknown_head_is_named(task):
  with pytest.raises(ValueError, match=r"unknown config\.network\.head 'linaer'; did"):
    _create(task, head='linaer')
