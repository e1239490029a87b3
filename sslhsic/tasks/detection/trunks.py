"""Two ways to give a detector its feature maps, and features of regions."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic import networks
from sslhsic.networks import layers
from sslhsic.tasks.detection import heads, pyramid
from sslhsic.tasks.detection import roi_align as roi_align_lib
from sslhsic.tasks.detection.settings import DetectorSettings


class Frozen(NamedTuple):
  """Parts of the encoder that use and keep the batch statistics that they have.

  Attributes:
    trunk: all of the encoder but its last group.
    last_group: the last group.
  """

  trunk: bool
  last_group: bool


class Levels(NamedTuple):
  """Feature maps of n images.

  Attributes:
    maps: [n, h_i, w_i, c] each.
    content: rows and columns of each that are not padding, [n, 2] int32.
  """

  maps: tuple[chex.Array, ...]
  content: tuple[chex.Array, ...]


class C4:
  """Features of the last but one stage; the last group judges the regions.

  The baseline of He et al. (2016), https://arxiv.org/abs/1512.03385, appendix A.

  Attributes:
    strides: pixels of the image per cell of each level.
  """

  def __init__(
    self,
    network: networks.SplitEncoder,
    settings: DetectorSettings,
    *,
    frozen: Frozen,
    extra_batch_norm: bool,
    axis_name: str | None,
  ):
    """Sets the parts, see `detector.create`."""
    self._network = network
    self._settings = settings
    self._frozen = frozen
    self._extra_batch_norm = extra_batch_norm
    self._axis_name = axis_name
    # A tuple of one: C4 has a single level, the last stage but one.
    self.strides = network.stage_strides[-2:-1]

  def levels(
    self, images: chex.Array, content: chex.Array, *, is_training: bool
  ) -> Levels:
    """The one level, of images [n, H, W, 3] with this content [n, 2]."""
    is_training = is_training and not self._frozen.trunk
    x = self._network.trunk(images, is_training=is_training, content=content)
    return Levels((x,), (layers.strided(content, self.strides[0]),))

  def box_features(
    self,
    levels: Levels,
    rois: chex.Array,
    is_counted: chex.Array,
    *,
    is_training: bool,
  ) -> chex.Array:
    """Features [n·r, c] of regions [n, r, 4]; batch statistics are of those counted."""
    x = self.pool(levels, rois, self._settings.box_pool)
    # A pooled region counts as a whole, or not at all.
    rows = jnp.where(is_counted.ravel(), self._settings.box_pool, 0)
    content = jnp.stack([rows, rows], axis=1)
    trains = is_training and not self._frozen.last_group
    x = self._network.last_group(x, is_training=trains, content=content)
    if self._extra_batch_norm:
      # Whether a region is counted does not depend on the stride of the group.
      mask = (content[:, 0] > 0)[:, None, None, None]
      x = layers.batch_norm(
        x,
        is_training=is_training,
        axis_name=self._axis_name,
        mask=mask,
        name='box_batchnorm',
      )
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

  def pool(self, levels: Levels, rois: chex.Array, output_size: int) -> chex.Array:
    """Features [n·r, P, P, c] of regions [n, r, 4]."""
    return _pool(levels, self.strides, rois, self._settings, output_size)


class FPN:
  """Features of a pyramid; two linear layers judge the regions.

  Lin et al. (2017), https://arxiv.org/abs/1612.03144.

  Attributes:
    strides: pixels of the image per cell of each level.
  """

  def __init__(
    self,
    network: networks.Encoder,
    settings: DetectorSettings,
    *,
    frozen: Frozen,
    channels: int,
    box_size: int,
  ):
    """Sets the parts, see `detector.create`.

    Raises:
      ValueError: a stage has not half the resolution of the one before.
    """
    pairs = itertools.pairwise(network.stage_strides)
    if any(next_one != 2 * stride for stride, next_one in pairs):
      raise ValueError(
        "the detector 'fpn' needs stages of half the resolution of the one before, but "
        f'the strides of the encoder are {network.stage_strides}; leave output_stride '
        "out of config.network.encoder_options, or use the detector 'c4'"
      )
    self._network = network
    self._settings = settings
    self._freeze = frozen.trunk
    self._pyramid = pyramid.FeaturePyramid(channels)
    self._layers = heads.TwoLayers(box_size)
    # The level above the pyramid has every second pixel of the last one.
    self.strides = (*network.stage_strides, 2 * network.stage_strides[-1])

  def levels(
    self, images: chex.Array, content: chex.Array, *, is_training: bool
  ) -> Levels:
    """The levels, of images [n, H, W, 3] with this content [n, 2]."""
    is_training = is_training and not self._freeze
    features = self._network(images, is_training=is_training, content=content)
    of_levels = tuple(layers.strided(content, stride) for stride in self.strides)
    return Levels(self._pyramid(features.stages, of_levels), of_levels)

  def box_features(
    self,
    levels: Levels,
    rois: chex.Array,
    is_counted: chex.Array,
    *,
    is_training: bool,
  ) -> chex.Array:
    """Features [n·r, c] of regions [n, r, 4]."""
    del is_counted, is_training  # There is no batch norm.
    return self._layers(self.pool(levels, rois, self._settings.box_pool))

  def pool(self, levels: Levels, rois: chex.Array, output_size: int) -> chex.Array:
    """Features [n·r, P, P, c] of regions [n, r, 4], none of the topmost level."""
    # As in the paper, the topmost level serves the proposals of large objects only.
    levels = Levels(levels.maps[:-1], levels.content[:-1])
    return _pool(levels, self.strides[:-1], rois, self._settings, output_size)


def _pool(
  levels: Levels,
  strides: Sequence[int],
  rois: chex.Array,
  settings: DetectorSettings,
  output_size: int,
) -> chex.Array:
  def of_image(maps, content, rois):
    # With the single level of C4, every region is clipped to level 0.
    places = roi_align_lib.level_of(rois, len(maps), settings.canonical_size)
    return roi_align_lib.roi_align(
      maps,
      strides,
      rois,
      places,
      output_size,
      settings.sampling_ratio,
      max_sampling_ratio=settings.max_sampling_ratio,
      content=content,
    )

  pooled = jax.vmap(of_image)(*levels, rois)
  return pooled.reshape(-1, *pooled.shape[2:])
