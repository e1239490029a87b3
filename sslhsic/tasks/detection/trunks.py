"""Two ways to give a detector its feature maps, and features of regions."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from sslhsic import networks
from sslhsic.tasks.detection import heads, pyramid
from sslhsic.tasks.detection import roi_align as roi_align_lib
from sslhsic.tasks.detection.settings import DetectorSettings


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
    freeze_batch_norm: bool,
  ):
    self._network = network
    self._settings = settings
    self._freeze = freeze_batch_norm
    self.strides = network.stage_strides[-2:-1]

  def maps(self, images: chex.Array, *, is_training: bool) -> tuple[chex.Array, ...]:
    """The one level, [n, h, w, c]."""
    is_training = is_training and not self._freeze
    return (self._network.trunk(images, is_training=is_training),)

  def box_features(
    self, maps: Sequence[chex.Array], rois: chex.Array, *, is_training: bool
  ) -> chex.Array:
    """Features [n·r, c] of regions [n, r, 4]."""
    x = self.pool(maps, rois, self._settings.box_pool)
    is_training = is_training and not self._freeze
    x = self._network.last_group(x, is_training=is_training)
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

  def pool(
    self, maps: Sequence[chex.Array], rois: chex.Array, output_size: int
  ) -> chex.Array:
    """Features [n·r, P, P, c] of regions [n, r, 4]."""
    return _pool(maps, self.strides, rois, self._settings, output_size)


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
    freeze_batch_norm: bool,
    channels: int,
    box_size: int,
  ):
    self._network = network
    self._settings = settings
    self._freeze = freeze_batch_norm
    self._pyramid = pyramid.FeaturePyramid(channels)
    self._layers = heads.TwoLayers(box_size)
    self.strides = (*network.stage_strides, 2 * network.stage_strides[-1])

  def maps(self, images: chex.Array, *, is_training: bool) -> tuple[chex.Array, ...]:
    """The levels, [n, h_i, w_i, c] each."""
    is_training = is_training and not self._freeze
    return self._pyramid(self._network(images, is_training=is_training).stages)

  def box_features(
    self, maps: Sequence[chex.Array], rois: chex.Array, *, is_training: bool
  ) -> chex.Array:
    """Features [n·r, c] of regions [n, r, 4]."""
    del is_training  # There is no batch norm.
    return self._layers(self.pool(maps, rois, self._settings.box_pool))

  def pool(
    self, maps: Sequence[chex.Array], rois: chex.Array, output_size: int
  ) -> chex.Array:
    """Features [n·r, P, P, c] of regions [n, r, 4], none of the topmost level."""
    levels = maps[:-1], self.strides[:-1]
    return _pool(*levels, rois, self._settings, output_size)


def _pool(
  maps, strides, rois, settings: DetectorSettings, output_size: int
) -> chex.Array:
  def of_image(maps, rois):
    levels = roi_align_lib.level_of(rois, len(maps), settings.canonical_size)
    return roi_align_lib.roi_align(maps, strides, rois, levels, output_size)

  pooled = jax.vmap(of_image)(maps, rois)
  return pooled.reshape(-1, *pooled.shape[2:])
