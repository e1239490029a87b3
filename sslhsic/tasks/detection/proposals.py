"""From what the networks predict to proposals, and to detections.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, sections 3.1 and 3.3; of one image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic.tasks.detection import boxes as boxes_lib
from sslhsic.tasks.detection import nms
from sslhsic.tasks.detection.settings import DetectorSettings

ANCHOR_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # Of the code of boxes relative to anchors.


class Proposals(NamedTuple):
  """Regions that may hold an object: boxes [p, 4], and is_valid [p] bool."""

  boxes: chex.Array
  is_valid: chex.Array


class Detections(NamedTuple):
  """Objects that were found in an image, the best first.

  Attributes:
    boxes: [D, 4], in pixels of the image that the network saw.
    scores: [D], probabilities; 0 where not valid.
    classes: [D] int32.
    is_valid: [D] bool; others only fill up.
    masks: [D, M, M] probabilities in the boxes; None without masks.
  """

  boxes: chex.Array
  scores: chex.Array
  classes: chex.Array
  is_valid: chex.Array
  masks: chex.Array | None = None


def is_inside(anchors: chex.Array, size: chex.Array) -> chex.Array:
  """Whether the centres of anchors [n, 4] are in the content of an image, [n] bool.

  Ours: torchvision also judges anchors of the padding.
  """
  x, y = (anchors[:, 0] + anchors[:, 2]) / 2, (anchors[:, 1] + anchors[:, 3]) / 2
  return (x < size[1]) & (y < size[0])


def propose(
  objectness: Sequence[chex.Array],
  codes: Sequence[chex.Array],
  anchors: Sequence[chex.Array],
  size: chex.Array,
  settings: DetectorSettings,
  *,
  is_training: bool,
) -> Proposals:
  """The best regions of all levels, after suppression on each of them.

  Args:
    objectness: logits of each level, [a_i].
    codes: of boxes relative to anchors, [a_i, 4].
    anchors: [a_i, 4].
    size: height and width of the image's content, [2].
    settings: see there.
    is_training: which numbers of proposals are meant.
  """
  before = settings.before_nms_training if is_training else settings.before_nms
  after = settings.after_nms_training if is_training else settings.after_nms

  def of_level(logits, codes, anchors):
    logits = jnp.where(is_inside(anchors, size), logits, -jnp.inf)
    scores, places = jax.lax.top_k(logits, min(before, len(logits)))
    boxes = boxes_lib.decode(codes[places], anchors[places], ANCHOR_WEIGHTS)
    boxes = boxes_lib.clip(boxes, size)
    # `top_k` fills up with anchors of the padding, whose score is −∞.
    is_valid = jnp.isfinite(scores)
    is_valid &= boxes_lib.larger_than(boxes, settings.proposal_min_size)
    is_kept = nms.keep(boxes, scores, is_valid, settings.proposal_nms)
    # Shapes are fixed: a suppressed box stays, and ranks last.
    return jnp.where(is_kept, scores, -jnp.inf), boxes

  levels = [of_level(*x) for x in zip(objectness, codes, anchors, strict=True)]
  scores, boxes = (jnp.concatenate(x) for x in zip(*levels, strict=True))
  scores, places = jax.lax.top_k(scores, min(after, len(scores)))
  return Proposals(boxes[places], jnp.isfinite(scores))


def detect(
  logits: chex.Array,
  codes: chex.Array,
  proposals: Proposals,
  size: chex.Array,
  settings: DetectorSettings,
) -> Detections:
  """The best objects of all classes, after suppression within each class.

  Args:
    logits: of each proposal, [p, C + 1], the last one for background.
    codes: of boxes relative to proposals, for each class, [p, C, 4].
    proposals: p regions.
    size: height and width of the image's content, [2].
    settings: see there.
  """
  num_classes = codes.shape[1]
  # [C, p]: classes come first, as suppression is mapped over them.
  scores = jax.nn.softmax(logits)[:, :num_classes].T
  regions = jnp.broadcast_to(proposals.boxes[:, None], codes.shape)
  boxes = boxes_lib.decode(codes, regions, settings.box_weights)
  boxes = boxes_lib.clip(boxes, size).swapaxes(0, 1)
  is_valid = proposals.is_valid[None] & (scores > settings.score_threshold)
  is_valid &= boxes_lib.larger_than(boxes, settings.detection_min_size)
  suppress = lambda *x: nms.keep(*x, settings.detection_nms)
  is_kept = jax.vmap(suppress)(boxes, scores, is_valid)
  scores = jnp.where(is_kept, scores, 0.0).ravel()
  scores, places = jax.lax.top_k(
    scores, min(settings.detections_per_image, len(scores))
  )
  # Places in the flattened [C, p]: class·p + proposal.
  classes = (places // len(logits)).astype(jnp.int32)
  return Detections(boxes.reshape(-1, 4)[places], scores, classes, scores > 0)
