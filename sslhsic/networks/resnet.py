"""ResNet v1 for images, with the padding of PyTorch and every stage's feature map.

He et al. (2016), https://arxiv.org/abs/1512.03385, with the stride of a bottleneck on
its 3×3 convolution. Convolutions and pooling are padded symmetrically, and by default a
shortcut is projected only where its shape changes, or would without dilation, so that
the weights mean the same in torchvision. Its names follow from ours:

| Haiku                              | torchvision                   |
|------------------------------------|-------------------------------|
| resnet/stem_conv, stem_batchnorm   | conv1, bn1                    |
| resnet/group_G/block_B/conv_I      | layer{G+1}.B.conv{I+1}        |
| resnet/group_G/block_B/batchnorm_I | layer{G+1}.B.bn{I+1}          |
| .../shortcut_conv                  | layer{G+1}.B.downsample.0     |
| .../shortcut_batchnorm             | layer{G+1}.B.downsample.1     |
"""

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from sslhsic.networks import layers
from sslhsic.networks.encoder import Features, SplitEncoder

_STEM_STRIDES = {'imagenet': 4, 'small': 1}


class Block(hk.Module):
  """Residual block: convolutions 1×1, 3×3, 1×1 (bottleneck), or two of 3×3 (basic)."""

  def __init__(
    self,
    channels: int,
    *,
    bottleneck: bool,
    stride: int,
    projects: bool,
    dilations: tuple[int, int],
    zero_init_last_scale: bool,
    norm: Mapping[str, Any],
    name: str,
  ):
    """Sets the shape of the block.

    Args:
      channels: of the output; a bottleneck is a quarter as wide inside.
      bottleneck: whether the block is a bottleneck or basic.
      stride: of the first 3×3 convolution and the shortcut.
      projects: whether the shortcut is projected even if its shape stays.
      dilations: of the first 3×3 convolution, and of those after it.
      zero_init_last_scale: whether the block starts as its shortcut.
      norm: axis_name and decay of `batch_norm`.
      name: of the module.
    """
    super().__init__(name=name)
    self.channels = channels
    self.stride = stride
    self.projects = projects
    self.zero_init_last_scale = zero_init_last_scale
    self.norm = norm
    first, after = dilations
    # Channels, kernel size, stride, dilation.
    self.layers: tuple[tuple[int, int, int, int], ...]
    if bottleneck:
      inner = channels // 4
      self.layers = (
        (inner, 1, 1, 1),
        (inner, 3, stride, first),
        (channels, 1, 1, 1),
      )
    else:
      self.layers = ((channels, 3, stride, first), (channels, 3, 1, after))

  def __call__(
    self, x: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> jax.Array:
    """Maps [n, h, w, c] to [n, h/stride, w/stride, channels]; content as of x."""
    norm = {'is_training': is_training, **self.norm}
    shortcut = x
    if self.projects or self.stride != 1 or x.shape[-1] != self.channels:
      shortcut = layers.conv2d(
        x, self.channels, 1, stride=self.stride, name='shortcut_conv'
      )
      # Batch norm leaves 0 outside of the content, as if the image ended there.
      mask = layers.content_mask(shortcut, layers.strided(content, self.stride))
      shortcut = layers.batch_norm(
        shortcut, mask=mask, name='shortcut_batchnorm', **norm
      )
    last = len(self.layers) - 1
    for i, (channels, kernel_size, stride, dilation) in enumerate(self.layers):
      x = layers.conv2d(
        x, channels, kernel_size, stride=stride, dilation=dilation, name=f'conv_{i}'
      )
      content = layers.strided(content, stride)
      is_zero = i == last and self.zero_init_last_scale
      x = layers.batch_norm(
        x,
        scale_init=jnp.zeros if is_zero else jnp.ones,
        mask=layers.content_mask(x, content),
        name=f'batchnorm_{i}',
        **norm,
      )
      x = jax.nn.relu(x) if i < last else x
    return jax.nn.relu(x + shortcut)


class ResNet(SplitEncoder):
  """Residual network without classifier; computes in the type of its images.

  The total stride is that of the stem (imagenet 4, small 1), doubled by every group
  but the first. A smaller `output_stride` keeps the resolution of the last one or two
  groups: stride 1 instead of 2, and dilation 2, then 4, after that. By default, as in
  torchvision, the convolution that loses its stride keeps the dilation of the group
  before; the features are then those of the undilated network, on a finer grid.
  torchvision dilates bottleneck networks only; here, basic blocks follow the same rule.

  Args:
    blocks_per_group: number of residual blocks in each group.
    channels_per_group: channels of each group's output, before `width`.
    bottleneck: whether blocks are bottlenecks or basic.
    width: multiplies all channels, the stem's included.
    stem: 'imagenet' (7×7 convolution and max-pool, stride 2 each) or 'small' (one
      3×3 convolution, for images of CIFAR's size). It is as wide as the 3×3
      convolutions of the first group: 64 in the published networks.
    output_stride: pixels of the image per pixel of the last stage; None for the total
      stride, or half or a quarter of it.
    dilate_first_block: whether all 3×3 convolutions of a group have its dilation, as
      in the FCNs of MoCo and BYOL; False is torchvision's rule.
    zero_init_last_scale: whether the scale of the last batch norm of a block starts
      at 0, so that the block starts as its shortcut; None: of bottlenecks alone, as
      in Haiku and in BYOL's code.
    project_first_shortcut: whether the first shortcut of the first group of basic
      blocks is projected too, as in Haiku and in BYOL's code, though its shape stays;
      torchvision has no such projection. That of bottlenecks always is.
    axis_name: devices that share their batch statistics, or None.
    batch_norm_decay: decay of the moving averages of batch statistics.
    name: of the module.

  Raises:
    ValueError: if the groups do not match, or stem or output stride are unknown.
  """

  norm_name: ClassVar[str] = 'batchnorm'
  has_batch_statistics: ClassVar[bool] = True

  def __init__(
    self,
    *,
    blocks_per_group: Sequence[int],
    channels_per_group: Sequence[int],
    bottleneck: bool,
    width: int = 1,
    stem: str = 'imagenet',
    output_stride: int | None = None,
    dilate_first_block: bool = False,
    zero_init_last_scale: bool | None = None,
    project_first_shortcut: bool = False,
    axis_name: str | None = None,
    batch_norm_decay: float = 0.9,
    name: str = 'resnet',
  ):
    super().__init__(name=name)
    if len(blocks_per_group) != len(channels_per_group):
      raise ValueError(
        f'{len(blocks_per_group)} groups of blocks but {len(channels_per_group)} of '
        'channels; blocks_per_group and channels_per_group need the same length'
      )
    if stem not in _STEM_STRIDES:
      raise ValueError(f'unknown stem {stem!r}; use one of {sorted(_STEM_STRIDES)}')
    self.blocks_per_group = blocks_per_group
    self.channels_per_group = [width * channels for channels in channels_per_group]
    self.bottleneck = bottleneck
    self.stem = stem
    self.dilate_first_block = dilate_first_block
    self.project_first_shortcut = project_first_shortcut
    self.zero_init_last_scale = (
      bottleneck if zero_init_last_scale is None else zero_init_last_scale
    )
    self.strides, self.dilations = _strides_and_dilations(
      len(blocks_per_group), _STEM_STRIDES[stem], output_stride
    )
    stem_stride = _STEM_STRIDES[stem]
    self.stage_strides = tuple(
      stem_stride * stride
      for stride in itertools.accumulate(self.strides, operator.mul)
    )
    self.output_stride = self.stage_strides[-1]
    self.last_group_name = f'/group_{len(blocks_per_group) - 1}/'
    self.norm: dict[str, Any] = {'axis_name': axis_name, 'decay': batch_norm_decay}

  def __call__(
    self, images: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> Features:
    """See `Encoder`: a stage for every group; the embedding is the last one's mean."""
    # The first input is the output of the stem, which is not a stage.
    _, *stages = inputs = _inputs_of_groups(
      self, images, is_training=is_training, content=content
    )
    last = len(self.blocks_per_group) - 1
    before = _content_of_group(self, last, content)
    stages.append(
      _group(self, inputs[-1], last, is_training=is_training, content=before)
    )
    content = layers.strided(content, self.output_stride)
    return Features(tuple(stages), layers.spatial_mean(stages[-1], content))

  @hk.name_like('__call__')
  def trunk(
    self, images: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> jax.Array:
    """See `SplitEncoder`."""
    return _inputs_of_groups(self, images, is_training=is_training, content=content)[-1]

  @hk.name_like('__call__')
  def last_group(
    self, x: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> jax.Array:
    """See `SplitEncoder`."""
    last = len(self.blocks_per_group) - 1
    return _group(self, x, last, is_training=is_training, content=content)


def _inputs_of_groups(
  network: ResNet,
  images: jax.Array,
  *,
  is_training: bool,
  content: jax.Array | None,
) -> list[jax.Array]:
  """Output of the stem and of every group but the last; inside a method."""
  chex.assert_rank(images, 4)
  chex.assert_type(images, float)
  inputs = [_stem(network, images, is_training=is_training, content=content)]
  for group in range(len(network.blocks_per_group) - 1):
    before = _content_of_group(network, group, content)
    inputs.append(
      _group(network, inputs[-1], group, is_training=is_training, content=before)
    )
  return inputs


def _content_of_group(
  network: ResNet, group: int, content: jax.Array | None
) -> jax.Array | None:
  """Content of the input of a group, [n, 2], from the content of the images."""
  # Group 0 reads the stem, group g the stage g − 1.
  strides = (_STEM_STRIDES[network.stem], *network.stage_strides)
  return layers.strided(content, strides[group])


def _group(
  network: ResNet,
  x: jax.Array,
  group: int,
  *,
  is_training: bool,
  content: jax.Array | None,
) -> jax.Array:
  """Applies a group of residual blocks to x, whose content it is; inside a method."""
  dilation = network.dilations[group]
  dilation_before = network.dilations[group - 1] if group else 1
  if network.dilate_first_block:
    dilation_before = dilation
  projects = group > 0 or network.project_first_shortcut
  with hk.name_scope(f'group_{group}'):
    for i in range(network.blocks_per_group[group]):
      stride = network.strides[group] if i == 0 else 1
      block = Block(
        network.channels_per_group[group],
        bottleneck=network.bottleneck,
        stride=stride,
        # Also where dilation stands for a stride: the parameters stay the same.
        projects=projects and i == 0,
        dilations=(dilation_before if i == 0 else dilation, dilation),
        zero_init_last_scale=network.zero_init_last_scale,
        norm=network.norm,
        name=f'block_{i}',
      )
      x = block(x, is_training=is_training, content=content)
      content = layers.strided(content, stride)
  return x


def _stem(
  network: ResNet,
  images: jax.Array,
  *,
  is_training: bool,
  content: jax.Array | None,
) -> jax.Array:
  """Maps images to the input of the first group; inside a method."""
  channels = network.channels_per_group[0] // (4 if network.bottleneck else 1)
  kernel_size, stride = (7, 2) if network.stem == 'imagenet' else (3, 1)
  # The first convolution must see zeros beyond the content, whatever the pixels.
  x = layers.without_padding(images, content)
  x = layers.conv2d(x, channels, kernel_size, stride=stride, name='stem_conv')
  mask = layers.content_mask(x, layers.strided(content, stride))
  x = layers.batch_norm(
    x, is_training=is_training, mask=mask, **network.norm, name='stem_batchnorm'
  )
  x = jax.nn.relu(x)
  # After the ReLU nothing is negative, so zeros outside of the content win no maximum.
  return layers.max_pool(x) if network.stem == 'imagenet' else x


def _strides_and_dilations(
  num_groups: int, stem_stride: int, output_stride: int | None
) -> tuple[list[int], list[int]]:
  """Returns the stride and the dilation of every group."""
  total_stride = stem_stride * 2 ** (num_groups - 1)
  possible = [total_stride // 2**i for i in range(min(num_groups, 3))]
  if output_stride is None:
    output_stride = total_stride
  if output_stride not in possible:
    raise ValueError(
      f'output stride {output_stride} with {num_groups} groups after a stem of stride '
      f'{stem_stride}; use one of {possible}'
    )
  num_dilated = possible.index(output_stride)
  strides = [1] + [2] * (num_groups - 1 - num_dilated) + [1] * num_dilated
  dilations = [1] * (num_groups - num_dilated) + [2, 4][:num_dilated]
  return strides, dilations


def _basic(*blocks_per_group: int) -> dict[str, Any]:
  return {
    'blocks_per_group': blocks_per_group,
    'channels_per_group': (64, 128, 256, 512),
    'bottleneck': False,
  }


def _bottleneck(*blocks_per_group: int) -> dict[str, Any]:
  return {
    'blocks_per_group': blocks_per_group,
    'channels_per_group': (256, 512, 1024, 2048),
    'bottleneck': True,
  }


# Options of ResNet by name. The last one is for 8×8 images on a processor.
PRESETS: dict[str, dict[str, Any]] = {
  'resnet18': _basic(2, 2, 2, 2),
  'resnet34': _basic(3, 4, 6, 3),
  'resnet50': _bottleneck(3, 4, 6, 3),
  'resnet101': _bottleneck(3, 4, 23, 3),
  'resnet152': _bottleneck(3, 8, 36, 3),
  'resnet200': _bottleneck(3, 24, 36, 3),
  'resnet_digits': {
    'blocks_per_group': (1, 1),
    'channels_per_group': (32, 64),
    'bottleneck': False,
    'stem': 'small',
    'zero_init_last_scale': True,
  },
}
