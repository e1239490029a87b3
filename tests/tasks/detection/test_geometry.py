"""Boxes, anchors and suppression against loops written from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.tasks.detection import anchors, boxes, nms

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(rng, num, extent=100.0):
  corners = rng.uniform(0, extent, (num, 2))
  sizes = rng.uniform(1, extent / 2, (num, 2))
  return np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)


def overlap_of(a, b):
  width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
  height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
  return width * height


def area_of(a):
  return (a[2] - a[0]) * (a[3] - a[1])


def iou_of(a, b):
  both = overlap_of(a, b)
  return both / (area_of(a) + area_of(b) - both)


def test_overlaps_equal_a_loop():
  rng = np.random.default_rng(0)
  a, b = random_boxes(rng, 7), random_boxes(rng, 5)
  expected = [[iou_of(x, y) for y in b] for x in a]
  np.testing.assert_allclose(boxes.iou(a, b), expected, rtol=1e-5)
  expected = [[overlap_of(x, y) / area_of(x) for y in b] for x in a]
  np.testing.assert_allclose(boxes.covered(a, b), expected, rtol=1e-5)


def test_empty_boxes_overlap_nothing():
  empty, box = (
    np.array([[3, 3, 3, 3]], np.float32),
    np.array([[0, 0, 9, 9]], np.float32),
  )
  assert not boxes.iou(empty, empty).any()
  assert not boxes.iou(empty, box).any()
  assert not boxes.covered(empty, box).any()


def test_code_is_that_of_its_definition():
  # Centres 10, 20 and 16, 18; sizes 20×10 and 10×40.
  anchor = np.array([[0, 15, 20, 25]], np.float32)
  box = np.array([[11, -2, 21, 38]], np.float32)
  code = boxes.encode(box, anchor, WEIGHTS)
  expected = [[10 * 6 / 20, 10 * -2 / 10, 5 * np.log(0.5), 5 * np.log(4)]]
  np.testing.assert_allclose(code, expected, rtol=1e-6)


def test_decoding_inverts_coding():
  rng = np.random.default_rng(1)
  a, b = random_boxes(rng, 50), random_boxes(rng, 50)
  decoded = boxes.decode(boxes.encode(a, b, WEIGHTS), b, WEIGHTS)
  np.testing.assert_allclose(decoded, a, atol=1e-3)


def test_decoded_sizes_are_limited():
  anchor = np.array([[0, 0, 2, 2]], np.float32)
  code = np.array([[0, 0, 99, np.log(3)]], np.float32)
  decoded = boxes.decode(code, anchor, (1.0, 1.0, 1.0, 1.0))
  np.testing.assert_allclose(decoded, [[1 - 62.5, -2, 1 + 62.5, 4]], rtol=1e-6)


def test_clipping_and_size():
  box = np.array([[-5, 3, 30, 40], [1, 1, 1.5, 9]], np.float32)
  clipped = boxes.clip(box, np.array([20, 25], np.float32))
  np.testing.assert_array_equal(clipped, [[0, 3, 25, 20], [1, 1, 1.5, 9]])
  assert boxes.larger_than(clipped, 1.0).tolist() == [True, False]


def test_anchors_of_a_cell():
  # Published in the documentation of Faster R-CNN: round(√(size²/ratio) / 2) and so on.
  expected = [
    [-23, -11, 23, 11],
    [-45, -23, 45, 23],
    [-16, -16, 16, 16],
    [-32, -32, 32, 32],
    [-11, -23, 11, 23],
    [-23, -45, 23, 45],
  ]
  cell = anchors.of_cell((32, 64), (0.5, 1.0, 2.0))
  assert cell.dtype == np.float32
  np.testing.assert_array_equal(cell, expected)


def test_anchors_of_a_grid_equal_a_loop():
  cell = anchors.of_cell((9, 17), (0.7, 1.5))
  expected = [
    [x * 8 + a[0], y * 8 + a[1], x * 8 + a[2], y * 8 + a[3]]
    for y in range(3)
    for x in range(4)
    for a in cell
  ]
  np.testing.assert_array_equal(anchors.grid(cell, 3, 4, 8), expected)


def suppressed_one_by_one(boxes, scores, is_valid, threshold):
  """Non-maximum suppression as it is defined."""
  order = np.argsort(-scores, kind='stable')
  kept = []
  for i in order:
    if is_valid[i] and all(iou_of(boxes[i], boxes[j]) <= threshold for j in kept):
      kept.append(i)
  return np.isin(np.arange(len(boxes)), kept)


@pytest.mark.parametrize(('num', 'extent'), [(300, 60.0), (70, 8.0)])
def test_suppression_equals_one_by_one(num, extent, monkeypatch):
  monkeypatch.setattr(nms, '_BLOCK', 64)  # Several blocks, the last one not full.
  rng = np.random.default_rng(num)
  problems = [
    (
      random_boxes(rng, num, extent),
      # Many scores are equal.
      rng.integers(0, num // 2, num).astype(np.float32),
      rng.random(num) < 0.9,
    )
    for _ in range(3)
  ]
  keep = jax.jit(jax.vmap(lambda *x: nms.keep(*x, 0.4)))
  kept = keep(*(jnp.stack(x) for x in zip(*problems, strict=True)))
  expected = [suppressed_one_by_one(*x, 0.4) for x in problems]
  assert 0 < np.sum(expected) < np.sum([x[2] for x in problems])
  np.testing.assert_array_equal(kept, expected)


def test_suppression_follows_long_chains():
  # Each box overlaps the one before and after it: every second one is kept.
  x = np.arange(40, dtype=np.float32)
  chain = np.stack([x, 0 * x, x + 2.5, 0 * x + 1], axis=1)
  kept = jax.jit(nms.keep, static_argnums=3)(chain, -x, np.ones(40, bool), 0.3)
  assert kept.tolist() == [True, False] * 20
