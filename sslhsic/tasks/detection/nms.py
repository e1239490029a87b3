"""Non-maximum suppression, exact, without a loop over the boxes."""

import chex
import jax
import jax.numpy as jnp

from sslhsic.tasks.detection import boxes as boxes_lib

_BLOCK = 256  # Boxes whose overlaps with all others are held at a time.


def keep(
  boxes: chex.Array, scores: chex.Array, is_valid: chex.Array, threshold: float
) -> chex.Array:
  """Which boxes no better one suppresses.

  As the sequential algorithm: from the highest score down (the earlier of two equal
  ones first), a box is kept unless it overlaps one that was kept before. A block of
  boxes is decided at a time; within it, all boxes judge each other anew until nothing
  changes, which takes as many rounds as the longest chain of boxes that suppress each
  other. The result is the only one that is consistent with itself.

  Args:
    boxes: [n, 4].
    scores: [n].
    is_valid: [n] bool; other boxes are neither kept nor suppress any.
    threshold: of the intersection over union, above which a box is suppressed.

  Returns:
    [n] bool.
  """
  num = len(boxes)
  chex.assert_shape([boxes, scores, is_valid], [(num, 4), (num,), (num,)])
  # Best first; boxes that do not count go last.
  order = jnp.argsort(jnp.where(is_valid, -scores, jnp.inf), stable=True)
  block = min(_BLOCK, num)
  num_blocks = -(-num // block)
  padding = num_blocks * block - num
  sorted_boxes = jnp.pad(boxes[order], [(0, padding), (0, 0)])
  places = jnp.arange(num_blocks * block)

  def decide(i: chex.Array, is_left: chex.Array) -> chex.Array:
    start = i * block
    of_block = lambda x, axis=0: jax.lax.dynamic_slice_in_dim(x, start, block, axis)
    # Overlaps of one block with all boxes, [block, n]: memory is linear in n.
    overlaps = boxes_lib.iou(of_block(sorted_boxes), sorted_boxes) > threshold
    is_kept = _keep_of_block(of_block(overlaps, 1), of_block(is_left))
    is_suppressed = jnp.any(overlaps & is_kept[:, None], axis=0)
    # The block suppresses later boxes only: those before it are decided.
    is_left &= ~is_suppressed | (places < start + block)
    return jax.lax.dynamic_update_slice_in_dim(is_left, is_kept, start, 0)

  is_left = jnp.pad(is_valid[order], (0, padding))
  is_kept = jax.lax.fori_loop(0, num_blocks, decide, is_left)
  return jnp.zeros(num, bool).at[order].set(is_kept[:num])


def _keep_of_block(overlaps: chex.Array, is_left: chex.Array) -> chex.Array:
  """Of boxes that are sorted by score: overlaps [b, b], and what is left of them."""
  # A box suppresses only boxes of lower score, which come after it.
  suppresses = jnp.triu(overlaps, k=1)

  def judge(is_kept: chex.Array) -> chex.Array:
    return is_left & ~jnp.any(suppresses & is_kept[:, None], axis=0)

  def changes(before_and_after: tuple[chex.Array, chex.Array]) -> chex.Array:
    before, after = before_and_after
    return jnp.any(before != after)

  # Box j depends on boxes before j alone: each round settles at least one more, and the
  # fixed point is unique.
  return jax.lax.while_loop(
    changes, lambda pair: (pair[1], judge(pair[1])), (is_left, judge(is_left))
  )[1]
