"""Semantic segmentation: a fully convolutional or a linear head on an encoder.

On a dilated ResNet the former is the network of BYOL's evaluation (Grill et al. 2020,
appendix, arXiv:2006.07733), after Long et al. (2015), https://arxiv.org/abs/1411.4038.
"""

from collections.abc import Mapping

import chex
import haiku as hk
import jax

from sslhsic import networks, registry
from sslhsic.networks import classifier, layers, mixed_precision
from sslhsic.tasks import linear_head, upsampling

# By name, with their words for protocols.
HEADS = {'fcn': 'FCN head', 'linear': linear_head.DESCRIPTION}


class FCNHead(hk.Module):
  """Two 3×3 convolutions, dilated, with batch norm and ReLU; then one of 1×1."""

  def __init__(
    self,
    *,
    num_classes: int,
    channels: int,
    dilation: int,
    axis_name: str | None,
    name: str = 'fcn_head',
  ):
    """Sets the sizes, and the devices that share batch statistics."""
    super().__init__(name=name)
    self.num_classes = num_classes
    self.channels = channels
    self.dilation = dilation
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
    """Maps [n, h, w, c] to logits [n, h, w, num_classes]."""
    for i in range(2):
      x = layers.conv2d(x, self.channels, 3, dilation=self.dilation, name=f'conv_{i}')
      x = layers.batch_norm(
        x, is_training=is_training, axis_name=self.axis_name, name=f'batchnorm_{i}'
      )
      x = jax.nn.relu(x)
    return hk.Conv2D(self.num_classes, 1, name='logits')(x)


def create(
  *,
  encoder: str,
  encoder_options: Mapping,
  freeze_batch_norm: bool,
  num_classes: int,
  channels: int,
  dilation: int,
  head: str = 'fcn',
  precision: str = 'float32',
  axis_name: str | None = None,
) -> hk.TransformedWithState:
  """The encoder with a head, as a pair of Haiku functions.

  Args:
    encoder: its name, see `networks.ENCODERS`.
    encoder_options: what replaces arguments of the preset, such as `output_stride`.
    freeze_batch_norm: whether the encoder uses and keeps the statistics that it has.
    num_classes: C, background included.
    channels: of the convolutions of 'fcn'.
    dilation: of the 3×3 convolutions of 'fcn'.
    head: one of `HEADS`.
    precision: in which the network computes, see `mixed_precision`.
    axis_name: the mapped axis over which batch statistics are synchronised.

  Returns:
    Functions init and apply of (images [n, H, W, 3], is_training); apply gives logits
    [n, H, W, C], float32.

  Raises:
    ValueError: there is no such head or precision.
  """
  registry.entry('config.network.head', HEADS, head)

  def create_head() -> hk.Module:
    if head == 'linear':
      return linear_head.LinearHead(num_classes, axis_name=axis_name)
    return FCNHead(
      num_classes=num_classes, channels=channels, dilation=dilation, axis_name=axis_name
    )

  def forward(images: chex.Array, is_training: bool) -> chex.Array:
    network = networks.create(
      encoder, **encoder_options, axis_name=axis_name, name=classifier.ENCODER
    )
    # An encoder with frozen statistics runs in evaluation mode; the head trains.
    stages = network(images, is_training=is_training and not freeze_batch_norm).stages
    logits = create_head()(stages[-1], is_training=is_training)
    return upsampling.bilinear(
      logits,
      network.output_stride,
      images.shape[1:3],
      offset=network.output_offset,
    )

  policy = mixed_precision.policy(precision, FCNHead, linear_head.LinearHead)
  return hk.transform_with_state(policy(forward))
