"""RoIAlign: features of regions of any size, on a grid of fixed size.

He et al. (2017), https://arxiv.org/abs/1703.06870, section 3, with the half-pixel
correction of torchvision's `aligned=True`.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic.tasks.detection import boxes as boxes_lib

# Regions at a time at two samples per cell and axis: the gradient holds every sample of
# their features.
_CHUNK = 64


def level_of(rois: chex.Array, num_levels: int, canonical_size: float) -> chex.Array:
  """From which level of a feature pyramid each region [r, 4] takes its features.

  Lin et al. (2017), https://arxiv.org/abs/1612.03144, equation 1: a region of twice
  the size is found one level up.

  Args:
    rois: [r, 4].
    num_levels: L.
    canonical_size: root of the area above which a region belongs to the third level.

  Returns:
    [r] int32, below L.
  """
  size = jnp.sqrt(jnp.maximum(boxes_lib.area(rois), 1e-6))
  # As torchvision: a region of exactly the size is not to be rounded down.
  level = jnp.floor(2 + jnp.log2(size / canonical_size) + 1e-6)
  return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def roi_align(
  maps: Sequence[chex.Array],
  strides: Sequence[float],
  rois: chex.Array,
  levels: chex.Array,
  output_size: int,
  sampling_ratio: int = 2,
  *,
  max_sampling_ratio: int = 4,
  content: Sequence[chex.Array] | None = None,
) -> chex.Array:
  """Averages bilinear samples of feature maps in a grid of cells of each region.

  Samples more than one cell outside of the content of a map are 0; closer ones are
  those of its edge. All levels lie in one array, so that a region reads from its own
  level only.

  Args:
    maps: feature maps of an image, [h_i, w_i, c] each.
    strides: pixels of the image per cell of each map.
    rois: [r, 4] in pixels of the image.
    levels: [r], the map of each region.
    output_size: P.
    sampling_ratio: samples per cell of the grid, along either axis; 0: as many as the
      cell of the grid has cells of the map, rounded up, as in Detectron2.
    max_sampling_ratio: of these, at most, since shapes are fixed. Larger regions are
      sampled evenly, with gaps: at 4, those of more than 4·P cells of the map.
    content: [2] int32 for each map, its rows and columns that are not padding, from the
      top left; None: all.

  Returns:
    [r, P, P, c].
  """
  chex.assert_rank([rois, levels], [2, 1])
  heights, widths = (np.array([x.shape[i] for x in maps]) for i in (0, 1))
  first = np.cumsum(heights * widths) - heights * widths
  if content is None:
    content = np.stack([heights, widths], axis=1)
  width, first, length = (
    jnp.asarray(table, jnp.int32)[levels]
    for table in (widths, first, jnp.stack([jnp.asarray(x) for x in content]))
  )
  cells = rois / jnp.asarray(strides, rois.dtype)[levels][:, None]
  grid = output_size, sampling_ratio, max_sampling_ratio
  rows, row_weights = _samples(cells[:, 1], cells[:, 3], length[:, 0], *grid)
  columns, column_weights = _samples(cells[:, 0], cells[:, 2], length[:, 1], *grid)
  over = lambda x, *axes: jnp.expand_dims(x, axes)
  # Axes: region, row and column of the grid, sampled rows and columns of the map.
  index = over(first, 1, 2, 3, 4) + over(columns, 1, 3)
  index += over(rows, 2, 4) * over(width, 1, 2, 3, 4)
  weights = over(row_weights, 2, 4) * over(column_weights, 1, 3)
  flat = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])

  def pool(index_and_weights: tuple[chex.Array, chex.Array]) -> chex.Array:
    index, weights = index_and_weights
    # Not a product of matrices: gathering is then fused into the sum.
    return jnp.sum(flat[index] * weights[..., None].astype(flat.dtype), axis=(2, 3))

  chunk = max(_CHUNK * 4 // (sampling_ratio or max_sampling_ratio) ** 2, 1)
  return jax.lax.map(pool, (index, weights), batch_size=min(chunk, len(rois)))


def _samples(
  start: chex.Array,
  end: chex.Array,
  length: chex.Array,
  output_size: int,
  sampling_ratio: int,
  max_sampling_ratio: int,
) -> tuple[chex.Array, chex.Array]:
  """Along one axis, the cells that are read for each cell of the grid, and how much.

  Args:
    start, end: of the regions, [r], in cells.
    length: of their maps, [r].
    output_size: P.
    sampling_ratio, max_sampling_ratio: see `roi_align`; s is the first, or the second
      where that is 0.

  Returns:
    Indices and weights, [r, P, 2s] each.
  """
  over = lambda x: x[:, None, None]
  cell = (end - start) / output_size
  most = sampling_ratio or max_sampling_ratio
  num = jnp.full_like(cell, most)
  if not sampling_ratio:
    num = jnp.clip(jnp.ceil(cell), 1, most)
  # Axes: region, cell of the grid, sample; beyond `num` samples count for nothing.
  sample = np.arange(most, dtype=np.float32)[None, None]
  cells = np.arange(output_size, dtype=np.float32)[None, :, None]
  # start − ½ + cell·(i + (s + ½)/num) for cell i of the grid and its sample s.
  position = over(start - 0.5) + over(cell) * (cells + (sample + 0.5) / over(num))
  last = over(jnp.maximum(length - 1, 0).astype(jnp.float32))
  counts = (position >= -1) & (position <= last + 1)
  counts &= sample < over(num)
  position = jnp.clip(position, 0, last)
  low = jnp.floor(position)
  part = position - low
  # Along this axis, each of `num` samples counts 1/num of the mean.
  share = counts.astype(jnp.float32) / over(num)
  # A sample lies between two cells of the map, and is read from both.
  indices = jnp.stack([low, jnp.minimum(low + 1, last)], axis=-1).astype(jnp.int32)
  weights = jnp.stack([share * (1 - part), share * part], axis=-1)
  shape = (len(start), output_size, 2 * most)
  return indices.reshape(shape), weights.reshape(shape)
