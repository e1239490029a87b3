"""Samples of anchors and regions with all that they are to become; of one image."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic.tasks.detection import proposals, targets
from sslhsic.tasks.detection import roi_align as roi_align_lib
from sslhsic.tasks.detection.settings import DetectorSettings


class Anchors(NamedTuple):
  """Sampled anchors of an image.

  Attributes:
    places: [s] int32, among all anchors.
    labels: [s] int32, see `targets.Sample`.
    codes: [s, 4], of the objects relative to the anchors.
  """

  places: chex.Array
  labels: chex.Array
  codes: chex.Array


def sample_anchors(
  rng: chex.PRNGKey,
  anchors: chex.Array,
  size: chex.Array,
  truth: targets.Truth,
  settings: DetectorSettings,
) -> Anchors:
  """Draws anchors for the losses of the region proposal head.

  Args:
    rng: key of the image.
    anchors: of all levels, [a, 4].
    size: height and width of the image's content, [2].
    truth: its objects.
    settings: see there.
  """
  matched = targets.match(
    anchors,
    proposals.is_inside(anchors, size),
    truth,
    foreground=settings.anchor_foreground,
    background=settings.anchor_background,
    ignored_overlap=settings.ignored_overlap,
    with_best=True,
  )
  places, labels = targets.sample(
    rng,
    matched.labels,
    settings.anchors_per_image,
    settings.anchor_positive_fraction,
  )
  codes = targets.codes(anchors, truth, matched, proposals.ANCHOR_WEIGHTS)
  return Anchors(places, labels, codes[places])


class Regions(NamedTuple):
  """Sampled regions of an image, those that are to become objects first.

  Attributes:
    boxes: [s, 4].
    labels: [s] int32, see `targets.Sample`.
    classes: [s] int32; C for background, -1 where nothing was sampled.
    codes: [s, 4], of the objects relative to the regions.
    objects: [s] int32, which object of the image it is.
  """

  boxes: chex.Array
  labels: chex.Array
  classes: chex.Array
  codes: chex.Array
  objects: chex.Array


def sample_regions(
  rng: chex.PRNGKey,
  proposed: proposals.Proposals,
  truth: targets.Truth,
  num_classes: int,
  settings: DetectorSettings,
) -> Regions:
  """Draws regions among the proposals and the objects themselves.

  Args:
    rng: key of the image.
    proposed: what was proposed for it.
    truth: its objects.
    num_classes: C.
    settings: see there.
  """
  # As in torchvision: early in training, few proposals overlap an object.
  boxes = jnp.concatenate([proposed.boxes, truth.boxes])
  is_valid = jnp.concatenate([proposed.is_valid, truth.is_object])
  # Equal thresholds: no region is between foreground and background.
  matched = targets.match(
    boxes,
    is_valid,
    truth,
    foreground=settings.roi_foreground,
    background=settings.roi_foreground,
    ignored_overlap=settings.ignored_overlap,
    with_best=False,
  )
  places, labels = targets.sample(
    rng, matched.labels, settings.rois_per_image, settings.roi_positive_fraction
  )
  objects = matched.objects[places]
  classes = jnp.where(labels == targets.POSITIVE, truth.classes[objects], num_classes)
  classes = jnp.where(labels == targets.NEITHER, -1, classes)
  codes = targets.codes(boxes, truth, matched, settings.box_weights)
  return Regions(boxes[places], labels, classes, codes[places], objects)


def crop_masks(
  truth: targets.Truth, rois: chex.Array, objects: chex.Array, output_size: int
) -> chex.Array:
  """Masks of objects, as they are seen in regions; 0 outside of an object's box.

  Args:
    truth: objects with masks.
    rois: [r, 4].
    objects: [r], the object of each region.
    output_size: M.

  Returns:
    [r, M, M] float32 in [0, 1].
  """
  masks = truth.masks[objects].astype(jnp.float32) / 255
  boxes = truth.boxes[objects]
  corner = boxes[:, :2]
  # Slots without an object have empty boxes; their cells need a size.
  cell = jnp.maximum(boxes[:, 2:] - corner, 1e-3) / masks.shape[-1]
  # Regions in cells of the object's own mask, which covers [0, G] × [0, G].
  in_masks = jnp.concatenate(
    [(x - corner) / cell for x in (rois[:, :2], rois[:, 2:])], 1
  )

  def crop(mask: chex.Array, roi: chex.Array) -> chex.Array:
    level = jnp.zeros(1, jnp.int32)
    maps = [mask[..., None]]
    return roi_align_lib.roi_align(maps, [1], roi[None], level, output_size)

  # [r, 1, M, M, 1]: one region and one channel for each mask.
  return jax.vmap(crop)(masks, in_masks)[:, 0, :, :, 0]
