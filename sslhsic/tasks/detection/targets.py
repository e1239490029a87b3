"""What anchors and regions are to become, and which of them are learned from.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, sections 3.1.2 and 3.1.3.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic.tasks.detection import boxes as boxes_lib

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


class Truth(NamedTuple):
  """The objects of an image.

  Attributes:
    boxes: [K, 4].
    classes: [K] int32; -1 where there is no object.
    ignore: [K] bool, whether an object is neither to be found nor background.
    masks: [K, G, G] uint8 in the objects' boxes, 0 to 255; None without masks.
  """

  boxes: chex.Array
  classes: chex.Array
  ignore: chex.Array
  masks: chex.Array | None = None

  @property
  def is_object(self) -> chex.Array:
    """[K] bool, whether there is something to be found."""
    return (self.classes >= 0) & ~self.ignore


class Match(NamedTuple):
  """What each of n boxes is to become.

  Attributes:
    labels: [n] int32, POSITIVE, NEGATIVE or NEITHER.
    objects: [n] int32, the object that a positive one is to become.
  """

  labels: chex.Array
  objects: chex.Array


def match(
  candidates: chex.Array,
  is_valid: chex.Array,
  truth: Truth,
  *,
  foreground: float,
  background: float,
  ignored_overlap: float,
  with_best: bool,
) -> Match:
  """Gives each candidate the object that it overlaps most.

  Args:
    candidates: anchors or regions, [n, 4].
    is_valid: [n] bool; others are NEITHER.
    truth: the objects.
    foreground: least IoU of a positive candidate.
    background: IoU below which a candidate is negative.
    ignored_overlap: a candidate of which this part or more is in an object that is to
      be ignored is not negative.
    with_best: whether the candidates that overlap an object most of all are positive
      whatever the overlap, so that every object has some.
  """
  chex.assert_shape([candidates, is_valid], [(None, 4), (len(candidates),)])
  # Empty slots and objects to be ignored match nothing: −1 is below any IoU.
  counts = is_valid[:, None] & truth.is_object[None]
  overlaps = jnp.where(counts, boxes_lib.iou(candidates, truth.boxes), -1.0)
  largest = jnp.max(overlaps, axis=1)
  is_positive = largest >= foreground
  if with_best:
    # Ties count, as in torchvision; an object that no candidate meets has none.
    best = jnp.max(overlaps, axis=0, keepdims=True)
    is_positive |= jnp.any((overlaps == best) & (overlaps > 0), axis=1)
  is_ignored = jnp.any(
    (boxes_lib.covered(candidates, truth.boxes) >= ignored_overlap)
    & (truth.ignore & (truth.classes >= 0))[None],
    axis=1,
  )
  is_negative = is_valid & (largest < background) & ~is_ignored
  labels = jnp.where(is_positive, POSITIVE, jnp.where(is_negative, NEGATIVE, NEITHER))
  return Match(labels.astype(jnp.int32), jnp.argmax(overlaps, axis=1))


class Sample(NamedTuple):
  """Candidates that are learned from.

  Attributes:
    places: [s] int32, among the candidates, positive ones first.
    labels: [s] int32; NEITHER where there are too few candidates.
  """

  places: chex.Array
  labels: chex.Array


def sample(
  rng: chex.PRNGKey, labels: chex.Array, num: int, positive_fraction: float
) -> Sample:
  """Draws positive and negative candidates, as many as can be had.

  Args:
    rng: key of the image.
    labels: [n] int32 of the candidates.
    num: s, how many to draw.
    positive_fraction: greatest part of them that is positive; the rest is negative.
  """
  chex.assert_rank(labels, 1)
  # At random, but positive before negative before neither.
  lottery = jax.random.uniform(rng, labels.shape)
  places_of, counts = {}, {}
  at_most = {POSITIVE: int(num * positive_fraction), NEGATIVE: num}
  for label, most in at_most.items():
    most = min(most, len(labels))
    # Candidates of other labels are at −1, below every number of the lottery.
    drawn, places_of[label] = jax.lax.top_k(
      jnp.where(labels == label, lottery, -1.0), most
    )
    counts[label] = jnp.sum(drawn >= 0)
  slots = jnp.arange(num)
  num_positive = counts[POSITIVE]
  places = jnp.concatenate([places_of[POSITIVE], places_of[NEGATIVE]])
  first_negative = len(places_of[POSITIVE])
  is_positive = slots < num_positive
  is_negative = ~is_positive & (slots - num_positive < counts[NEGATIVE])
  # Slot i takes positive i, or else negative i − num_positive.
  source = jnp.where(is_positive, slots, first_negative + slots - num_positive)
  places = places[jnp.minimum(source, len(places) - 1)]
  labels = jnp.where(is_positive, POSITIVE, jnp.where(is_negative, NEGATIVE, NEITHER))
  return Sample(places, labels.astype(jnp.int32))


def codes(
  candidates: chex.Array, truth: Truth, matched: Match, weights: boxes_lib.Weights
) -> chex.Array:
  """Codes of the objects that candidates are to become, [n, 4]; 0 if not positive."""
  encoded = boxes_lib.encode(truth.boxes[matched.objects], candidates, weights)
  # Codes may be infinite for empty boxes, so they are replaced, not multiplied.
  return jnp.where((matched.labels == POSITIVE)[:, None], encoded, 0.0)
