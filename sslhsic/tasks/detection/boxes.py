"""Areas and overlaps of boxes, and how one box is coded relative to another.

The code is that of Girshick et al. (2014), https://arxiv.org/abs/1311.2524, appendix C,
with weights and a limit as in torchvision.
"""

import math

import chex
import jax.numpy as jnp

# A decoded box is at most 1000/16 times as wide or high as its anchor.
LARGEST_LOG = math.log(1000 / 16)

Weights = tuple[float, float, float, float]


def area(boxes: chex.Array) -> chex.Array:
  """Of boxes [..., 4] -> [...]."""
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: chex.Array, b: chex.Array) -> chex.Array:
  """Intersection over union of boxes [n, 4] and [m, 4] -> [n, m]; 0 of empty boxes."""
  both = _intersection(a, b)
  either = area(a)[:, None] + area(b)[None] - both
  # The divisor is 1 where boxes do not meet: neither branch divides by zero.
  return jnp.where(both > 0, both / jnp.where(both > 0, either, 1.0), 0.0)


def covered(a: chex.Array, b: chex.Array) -> chex.Array:
  """Part of each box of [n, 4] that lies in each of [m, 4] -> [n, m]."""
  both = _intersection(a, b)
  whole = jnp.broadcast_to(area(a)[:, None], both.shape)
  return jnp.where(both > 0, both / jnp.where(both > 0, whole, 1.0), 0.0)


def _intersection(a: chex.Array, b: chex.Array) -> chex.Array:
  chex.assert_shape([a, b], (None, 4))
  top_left = jnp.maximum(a[:, None, :2], b[None, :, :2])
  bottom_right = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
  # Two negative extents, of boxes that do not meet, would give a positive area.
  width_and_height = jnp.maximum(bottom_right - top_left, 0.0)
  return width_and_height[..., 0] * width_and_height[..., 1]


def clip(boxes: chex.Array, size: chex.Array) -> chex.Array:
  """Moves the corners of boxes [..., 4] into an image of size [2], height and width."""
  height, width = size[0], size[1]
  x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
  x1, x2 = (jnp.clip(x, 0.0, width) for x in (x1, x2))
  y1, y2 = (jnp.clip(y, 0.0, height) for y in (y1, y2))
  return jnp.stack([x1, y1, x2, y2], axis=-1)


def larger_than(boxes: chex.Array, side: float) -> chex.Array:
  """Whether boxes [..., 4] are at least that wide and high -> [...] bool."""
  width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
  return (width >= side) & (height >= side)


def encode(boxes: chex.Array, anchors: chex.Array, weights: Weights) -> chex.Array:
  """Codes boxes relative to anchors, both [..., 4].

  Returns:
    (w_x·Δx/a_w, w_y·Δy/a_h, w_w·log(b_w/a_w), w_h·log(b_h/a_h)), [..., 4], with Δ
    between the centres, and sizes b of boxes and a of anchors. Not finite where boxes
    or anchors are empty.
  """
  chex.assert_equal_shape([boxes, anchors])
  x, y, width, height = _centre_and_size(boxes)
  anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors)
  deltas = (
    (x - anchor_x) / anchor_width,
    (y - anchor_y) / anchor_height,
    jnp.log(width / anchor_width),
    jnp.log(height / anchor_height),
  )
  weighted = [weight * d for weight, d in zip(weights, deltas, strict=True)]
  return jnp.stack(weighted, axis=-1)


def decode(deltas: chex.Array, anchors: chex.Array, weights: Weights) -> chex.Array:
  """Boxes of their codes, all [..., 4]; inverse of `encode` within `LARGEST_LOG`."""
  chex.assert_equal_shape([deltas, anchors])
  anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors)
  dx, dy, dw, dh = (deltas[..., i] / weight for i, weight in enumerate(weights))
  # b_x = a_x + d_x·a_w and b_w = a_w·exp(d_w), with exp bounded.
  x, y = dx * anchor_width + anchor_x, dy * anchor_height + anchor_y
  half_width = 0.5 * jnp.exp(jnp.minimum(dw, LARGEST_LOG)) * anchor_width
  half_height = 0.5 * jnp.exp(jnp.minimum(dh, LARGEST_LOG)) * anchor_height
  corners = x - half_width, y - half_height, x + half_width, y + half_height
  return jnp.stack(corners, axis=-1)


def _centre_and_size(boxes: chex.Array) -> tuple[chex.Array, ...]:
  x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
  return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
