"""Depth estimation: up-projections or a linear layer on the last feature map.

Fast up-projections are a decoder that doubles the resolution again and again, without
convolving the zeros that un-pooling puts in (Laina et al. 2016,
https://arxiv.org/abs/1606.00373).
"""

from collections.abc import Mapping, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from sslhsic import networks, registry
from sslhsic.networks import classifier, layers, mixed_precision
from sslhsic.tasks import linear_head, upsampling

# By name, with their words for protocols.
HEADS = {'up_projections': 'up-projections', 'linear': linear_head.DESCRIPTION}


def interleaved_conv(x: jax.Array, channels: int, *, name: str) -> jax.Array:
  """Convolves 5×5 what x is with a zero after each row and column; doubles its size.

  Of 25 weights only those that meet no zero are used: 3×3, 3×2, 2×3 and 2×2 of them,
  for the pixels in even and odd rows and columns of the result.

  Args:
    x: [n, h, w, c].
    channels: of the result.
    name: prefix of the four convolutions, followed by the parity of row and column.

  Returns:
    [n, 2h, 2w, channels].
  """

  def parity(row: int, column: int) -> jax.Array:
    # Row 2i of the result sees rows i − 1, i, i + 1 of x; row 2i + 1 sees i and i + 1.
    layer = hk.Conv2D(
      channels,
      (3 - row, 3 - column),
      padding=[(1 - row, 1), (1 - column, 1)],
      with_bias=False,
      name=f'{name}_{row}{column}',
    )
    return layer(x)

  rows = [jnp.stack([parity(row, 0), parity(row, 1)], axis=3) for row in (0, 1)]
  n, h, w, _ = x.shape
  # [n, h, row parity, w, column parity, channels]: a reshape interleaves the four.
  return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, channels)


class UpProjection(hk.Module):
  """Residual block that doubles the resolution."""

  def __init__(self, channels: int, *, axis_name: str | None, name: str):
    """Sets the channels, and the devices that share batch statistics."""
    super().__init__(name=name)
    self.channels = channels
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
    """Maps [n, h, w, c] to [n, 2h, 2w, channels]."""
    norm = {'is_training': is_training, 'axis_name': self.axis_name}
    shortcut = interleaved_conv(x, self.channels, name='shortcut_conv')
    shortcut = layers.batch_norm(shortcut, name='shortcut_batchnorm', **norm)
    x = interleaved_conv(x, self.channels, name='conv_0')
    x = jax.nn.relu(layers.batch_norm(x, name='batchnorm_0', **norm))
    x = layers.conv2d(x, self.channels, 3, name='conv_1')
    x = layers.batch_norm(x, name='batchnorm_1', **norm)
    return jax.nn.relu(x + shortcut)


class DepthDecoder(hk.Module):
  """Up-projections, and a 3×3 convolution to one channel."""

  def __init__(
    self, channels: Sequence[int], *, axis_name: str | None, name: str = 'depth_decoder'
  ):
    """Sets the channels of the blocks, and the devices that share batch statistics."""
    super().__init__(name=name)
    self.channels = channels
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
    """Maps [n, h, w, c] to [n, 2ᵏh, 2ᵏw, 1], with k blocks."""
    for i, channels in enumerate(self.channels):
      block = UpProjection(channels, axis_name=self.axis_name, name=f'block_{i}')
      x = block(x, is_training=is_training)
    return hk.Conv2D(1, 3, name='depth')(x)


def create(
  *,
  encoder: str,
  encoder_options: Mapping,
  freeze_batch_norm: bool,
  channels: Sequence[int],
  head: str = 'up_projections',
  precision: str = 'float32',
  axis_name: str | None = None,
) -> hk.TransformedWithState:
  """The encoder with a head for depths, as a pair of Haiku functions.

  Args:
    encoder: its name, see `networks.ENCODERS`.
    encoder_options: what replaces arguments of the preset.
    freeze_batch_norm: whether the encoder uses and keeps the statistics that it has.
    channels: of each up-projection; 512, 256, 128, 64 in the paper.
    head: one of `HEADS`; 'linear' does not use the channels.
    precision: in which the network computes, see `mixed_precision`.
    axis_name: the mapped axis over which batch statistics are synchronised.

  Returns:
    Functions init and apply of (images [n, H, W, 3], is_training); apply gives depths
    [n, H, W] in metres, float32, interpolated from the resolution of the head.

  Raises:
    ValueError: there is no such head or precision; or, by the functions, there are more
      up-projections than the encoder halves.
  """
  registry.entry('config.network.head', HEADS, head)

  def decode(x: jax.Array, stride: int, is_training: bool) -> tuple[jax.Array, int]:
    """Depths [n, h, w, 1] of features of this stride, and their own stride."""
    if head == 'linear':
      layer = linear_head.LinearHead(1, axis_name=axis_name)
      return layer(x, is_training=is_training), stride
    decoder = DepthDecoder(channels, axis_name=axis_name)
    # Each up-projection halves the stride; the remaining factor is interpolated.
    remaining, rest = divmod(stride, 2 ** len(channels))
    if rest:
      raise ValueError(
        f'{len(channels)} up-projections after an encoder of stride {stride}: finer '
        'than the image; give fewer channels'
      )
    return decoder(x, is_training=is_training), remaining

  def forward(images: chex.Array, is_training: bool) -> chex.Array:
    network = networks.create(
      encoder, **encoder_options, axis_name=axis_name, name=classifier.ENCODER
    )
    # An encoder with frozen statistics runs in evaluation mode; the head trains.
    stages = network(images, is_training=is_training and not freeze_batch_norm).stages
    x, stride = decode(stages[-1], network.output_stride, is_training)
    x = upsampling.bilinear(x, stride, images.shape[1:3], offset=network.output_offset)
    return x[..., 0]

  policy = mixed_precision.policy(precision, DepthDecoder, linear_head.LinearHead)
  return hk.transform_with_state(policy(forward))
