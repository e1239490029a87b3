"""RoIAlign against a loop over samples, written from its definition."""

import functools

import jax
import numpy as np
import pytest

from sslhsic.tasks.detection import roi_align

STRIDES = (4, 8)
MAX_RATIO = 3  # Of adaptive sampling, less than some regions would have.


def bilinear(feature_map, y, x):
  """A sample [c] of a map [h, w, c]: 0 beyond a cell outside, else that of the edge."""
  height, width, channels = feature_map.shape
  if y < -1 or y > height or x < -1 or x > width:
    return np.zeros(channels)
  y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
  top, left = int(y), int(x)
  bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
  dy, dx = y - top, x - left
  above = (1 - dx) * feature_map[top, left] + dx * feature_map[top, right]
  below = (1 - dx) * feature_map[bottom, left] + dx * feature_map[bottom, right]
  return (1 - dy) * above + dy * below


def pooled_one_by_one(feature_map, stride, roi, size, ratio):
  x1, y1, x2, y2 = roi / stride - 0.5
  cell_height, cell_width = (y2 - y1) / size, (x2 - x1) / size
  # Ratio 0: the size of the cell, rounded up.
  rows, columns = (
    ratio or min(max(int(np.ceil(x)), 1), MAX_RATIO) for x in (cell_height, cell_width)
  )
  result = np.zeros((size, size, feature_map.shape[-1]))
  for i in range(size):
    for j in range(size):
      samples = [
        bilinear(
          feature_map,
          y1 + (i + (a + 0.5) / rows) * cell_height,
          x1 + (j + (b + 0.5) / columns) * cell_width,
        )
        for a in range(rows)
        for b in range(columns)
      ]
      result[i, j] = np.mean(samples, axis=0)
  return result


@pytest.fixture(scope='module')
def problem():
  rng = np.random.default_rng(0)
  maps = [
    rng.normal(size=shape).astype(np.float32) for shape in [(9, 12, 3), (5, 6, 3)]
  ]
  corners = rng.uniform(-15, 40, (30, 2))
  rois = np.concatenate([corners, corners + rng.uniform(0, 30, (30, 2))], axis=1)
  rois[0] = [0, 0, 48, 36]
  rois[1] = [5, 5, 5, 5]
  rois[2] = [500, 500, 600, 600]
  return maps, rois.astype(np.float32), rng.integers(0, 2, 30)


@functools.partial(jax.jit, static_argnums=3)
def pool_and_gradient(maps, rois, levels, ratio):
  def pool(maps):
    return roi_align.roi_align(
      maps, STRIDES, rois, levels, 3, ratio, max_sampling_ratio=MAX_RATIO
    )

  pooled, pull = jax.vjp(pool, maps)
  return pooled, pull(pooled)[0]


@pytest.mark.parametrize('ratio', [2, 0])
def test_equals_a_loop_over_samples(problem, ratio):
  maps, rois, levels = problem
  pooled, gradients = pool_and_gradient(maps, rois, levels, ratio)
  expected = [
    pooled_one_by_one(maps[level], STRIDES[level], roi, 3, ratio)
    for roi, level in zip(rois, levels, strict=True)
  ]
  np.testing.assert_allclose(pooled, expected, atol=1e-5)
  assert not pooled[2].any()
  # It is linear in the maps: <pooled, pooled> = <maps, gradient>.
  inner = sum(np.vdot(m, g) for m, g in zip(maps, gradients, strict=True))
  np.testing.assert_allclose(inner, np.vdot(expected, expected), rtol=1e-4)


def test_what_is_beyond_the_content_is_not_read(problem):
  maps, rois, levels = problem
  content = [np.array([6, 7], np.int32), np.array([5, 3], np.int32)]
  pool = jax.jit(
    lambda maps: roi_align.roi_align(maps, STRIDES, rois, levels, 3, content=content)
  )
  cropped = [
    x[:rows, :columns] for x, (rows, columns) in zip(maps, content, strict=True)
  ]
  expected = [
    pooled_one_by_one(cropped[level], STRIDES[level], roi, 3, 2)
    for roi, level in zip(rois, levels, strict=True)
  ]
  np.testing.assert_allclose(pool(maps), expected, atol=1e-5)


def test_levels_of_a_pyramid():
  # floor(4 + log2(√area / 224)) between 2 and 5, less 2.
  sizes = np.array([1, 111.9, 112, 223.9, 224, 447.9, 448, 2000], np.float32)
  rois = np.stack([0 * sizes, 0 * sizes, sizes, sizes], axis=1)
  assert roi_align.level_of(rois, 4, 224.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
  assert roi_align.level_of(np.zeros((1, 4), np.float32), 4, 224.0).tolist() == [0]
