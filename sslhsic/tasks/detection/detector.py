"""Detectors: Faster R-CNN on the encoder's fourth stage, Mask R-CNN on a pyramid.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, with the encoder's last group as
the trunk of the box head ('c4'), and He et al. (2017), https://arxiv.org/abs/1703.06870,
on a feature pyramid ('fpn'). All shapes are fixed: of proposals, sampled regions and
detections there are always equally many, some of which count for nothing. Images are
padded to a common size; neither the size nor the pixels of the padding change a result,
up to rounding and to which anchors are sampled.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from sslhsic import networks
from sslhsic.collectives import Weighted
from sslhsic.networks import classifier, mixed_precision
from sslhsic.tasks.detection import (
  anchors,
  heads,
  losses,
  proposals,
  pyramid,
  regions,
  targets,
  trunks,
)
from sslhsic.tasks.detection.settings import DetectorSettings

ARCHITECTURES = 'c4', 'fpn'


class Detector(NamedTuple):
  """A detector as Haiku functions of images [n, H, W, 3], normalised, sizes [n, 2].

  Attributes:
    init: of (rng, images, is_training), to initial parameters and network state.
    head_of_encoder: part of the names of the encoder's modules that belong to the box
      head; none for 'fpn'.
    losses: of (params, state, None, images, sizes, truth, keys): a dict of float32
      losses [n, s] of what is sampled, with the network state; the loss is the sum of
      their means. `truth` is a `targets.Truth` of [n, ...] arrays, `keys` [n] decide
      what is sampled in each image.
    detect: of (params, state, None, images, sizes): `proposals.Detections` of [n, ...]
      arrays, in pixels of the images, with the network state.
  """

  init: Callable[..., tuple[hk.Params, hk.State]]
  head_of_encoder: tuple[str, ...]
  losses: Callable[..., tuple[dict[str, Weighted], hk.State]]
  detect: Callable[..., tuple[proposals.Detections, hk.State]]


def create(
  *,
  architecture: str,
  encoder: str,
  encoder_options: Mapping,
  train_encoder: bool,
  freeze_batch_norm: bool,
  num_classes: int,
  with_masks: bool,
  settings: DetectorSettings,
  pyramid_channels: int = 256,
  box_size: int = 1024,
  extra_batch_norm: bool = False,
  precision: str = 'float32',
  axis_name: str | None = None,
) -> Detector:
  """The encoder with the heads of a detector.

  Args:
    architecture: 'c4' or 'fpn'.
    encoder: its name, see `networks.ENCODERS`.
    encoder_options: what replaces arguments of the preset.
    train_encoder: whether the encoder is trained; if not, it uses and keeps the batch
      statistics that it has, but for the last group where that is the box head.
    freeze_batch_norm: whether all of the encoder uses and keeps its statistics.
    num_classes: C, of objects.
    with_masks: whether there is a mask head; 'fpn' only.
    settings: numbers and thresholds.
    pyramid_channels: of the pyramid and of the mask head.
    box_size: of the linear layers of the box head of 'fpn'.
    extra_batch_norm: whether batch norm follows the last group in the box head of 'c4',
      as in MoCo (He et al. 2020, https://arxiv.org/abs/1911.05722).
    precision: see `mixed_precision`.
    axis_name: the mapped axis over which batch statistics are synchronised.

  Raises:
    ValueError: names are unknown, or choices do not go together; or, by the functions,
      the levels of `settings.anchor_sizes` are not those of the architecture.
  """
  _check(architecture, with_masks, extra_batch_norm)
  _check_encoder(architecture, encoder)
  create_encoder = lambda: networks.create(
    encoder, **encoder_options, axis_name=axis_name, name=classifier.ENCODER
  )
  of_c4 = {'extra_batch_norm': extra_batch_norm, 'axis_name': axis_name}
  of_fpn = {'channels': pyramid_channels, 'box_size': box_size}
  trunk, options = {'c4': (trunks.C4, of_c4), 'fpn': (trunks.FPN, of_fpn)}[architecture]
  frozen = trunks.Frozen(freeze_batch_norm or not train_encoder, freeze_batch_norm)

  create_parts = lambda: _Parts(
    settings,
    trunk(create_encoder(), settings, frozen=frozen, **options),
    heads.RegionProposalHead(settings.anchors_per_position),
    heads.BoxPredictor(num_classes),
    heads.MaskHead(num_classes, pyramid_channels) if with_masks else None,
  )
  head = (_last_group_name(create_encoder),) if architecture == 'c4' else ()
  init, *functions = _transformed(create_parts, precision)
  return Detector(init, head, *functions)


def _last_group_name(create_encoder: Callable[[], networks.SplitEncoder]) -> str:
  """The attribute; a module exists only inside of a transformation."""
  return hk.transform(lambda: create_encoder().last_group_name).apply({}, None)


def _check(architecture: str, with_masks: bool, extra_batch_norm: bool) -> None:
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f'unknown architecture {architecture!r}; use one of {", ".join(ARCHITECTURES)}'
    )
  if with_masks and architecture != 'fpn':
    raise ValueError(f'{architecture!r} has no mask head; use fpn, or no masks')
  if extra_batch_norm and architecture != 'c4':
    raise ValueError(
      f'config.network.extra_batch_norm is for the box head of c4, not of '
      f'{architecture!r}; use c4, or set it to False'
    )


def _check_encoder(architecture: str, encoder: str) -> None:
  is_split = lambda name: issubclass(networks.class_of(name), networks.SplitEncoder)
  # Split encoders all leave padding out; others may, for 'fpn'.
  known = ', '.join(filter(is_split, networks.ENCODERS))
  arguments = inspect.signature(networks.class_of(encoder).__call__).parameters
  if 'content' not in arguments:
    raise ValueError(
      f'detectors pad images, and {encoder} has no argument content to leave the '
      'padding out (see networks.Encoder); set config.network.encoder to another, such '
      f'as {known}'
    )
  if architecture == 'c4' and not is_split(encoder):
    raise ValueError(
      f"the detector 'c4' applies the last group of the encoder to regions, which "
      f"{encoder} cannot; use config.network.architecture = 'fpn', or an encoder of "
      f'{known}'
    )


# Modules that compute in the precision of the policy, besides the encoder.
_MODULES = (
  pyramid.FeaturePyramid,
  heads.RegionProposalHead,
  heads.TwoLayers,
  heads.BoxPredictor,
  heads.MaskHead,
)


class _Parts(NamedTuple):
  """What a detector consists of, inside a Haiku transformation."""

  settings: DetectorSettings
  trunk: trunks.C4 | trunks.FPN
  region_proposal_head: heads.RegionProposalHead
  box_predictor: heads.BoxPredictor
  mask_head: heads.MaskHead | None


def _transformed(
  create_parts: Callable[[], _Parts], precision: str
) -> Iterator[Callable]:
  """The functions init, losses and detect of a detector, in a precision."""

  def functions():
    parts = create_parts()
    bind = lambda function: functools.partial(function, parts)
    # `multi_transform_with_state` takes one function for init, and those to apply.
    return bind(_touch), (bind(_losses), bind(_detect))

  init, applies = hk.multi_transform_with_state(functions)
  return map(mixed_precision.policy(precision, *_MODULES), (init, *applies))


def _touch(parts: _Parts, images: chex.Array, is_training: bool) -> None:
  """Applies every module once, for initial values and batch statistics."""
  num, height, width, _ = images.shape
  content = jnp.broadcast_to(jnp.array([height, width]), (num, 2))
  levels = parts.trunk.levels(images, content, is_training=is_training)
  parts.region_proposal_head(levels.maps)
  # The whole image as the only region: initialisation needs shapes, not proposals.
  whole = jnp.array([0, 0, width, height], jnp.float32)
  rois = jnp.broadcast_to(whole, (num, 1, 4))
  features = parts.trunk.box_features(
    levels, rois, jnp.ones((num, 1), bool), is_training=is_training
  )
  parts.box_predictor(features)
  if parts.mask_head:
    _mask_logits(parts, levels, rois, jnp.zeros((num, 1), jnp.int32))


def _anchors(parts: _Parts, maps: Sequence[chex.Array]) -> list[chex.Array]:
  """The anchors of every level, [a_i, 4] each."""
  settings = parts.settings
  if len(settings.anchor_sizes) != len(maps):
    raise ValueError(
      f'anchor sizes for {len(settings.anchor_sizes)} levels, but there are '
      f'{len(maps)}; set anchor_sizes to sizes for each of them'
    )
  levels = zip(settings.anchor_sizes, maps, parts.trunk.strides, strict=True)
  return [
    jnp.asarray(
      anchors.grid(
        anchors.of_cell(sizes, settings.aspect_ratios), *x.shape[1:3], stride=stride
      )
    )
    for sizes, x, stride in levels
  ]


def _content(sizes: chex.Array) -> chex.Array:
  """Rows and columns of pixels, [n, 2] int32, of sizes [n, 2]."""
  return jnp.round(sizes).astype(jnp.int32)


def _losses(
  parts: _Parts,
  images: chex.Array,
  sizes: chex.Array,
  truth: targets.Truth,
  keys: chex.PRNGKey,
) -> dict[str, Weighted]:
  """See `Detector.losses`."""
  # Features, and what the region proposal head says of every anchor.
  levels = parts.trunk.levels(images, _content(sizes), is_training=True)
  boxes = _anchors(parts, levels.maps)
  predicted = parts.region_proposal_head(levels.maps)
  # [n, 2] keys: one samples anchors, the other regions.
  keys = jax.vmap(jax.random.split)(keys)
  results = _proposal_losses(parts, *predicted, boxes, sizes, truth, keys[:, 0])
  # Approximate joint training: no gradient flows through the proposed boxes.
  proposed = _propose(
    parts, *jax.lax.stop_gradient(predicted), boxes, sizes, is_training=True
  )
  sample = lambda *x: regions.sample_regions(
    *x, parts.box_predictor.num_classes, parts.settings
  )
  sampled = jax.vmap(sample)(keys[:, 1], proposed, truth)
  # Slots without a region must not count in the batch statistics of the box head.
  features = parts.trunk.box_features(
    levels, sampled.boxes, sampled.labels != targets.NEITHER, is_training=True
  )
  results |= _box_losses(parts, features, sampled)
  if parts.mask_head:
    results |= {'masks': _mask_loss(parts, levels, sampled, truth)}
  return results


def _proposal_losses(
  parts: _Parts,
  objectness: Sequence[chex.Array],
  codes: Sequence[chex.Array],
  boxes: Sequence[chex.Array],
  sizes: chex.Array,
  truth: targets.Truth,
  keys: chex.Array,
) -> dict[str, Weighted]:
  """Of the region proposal head, on sampled anchors of all levels."""
  settings = parts.settings
  boxes = jnp.concatenate(boxes)
  sample = lambda *x: regions.sample_anchors(x[0], boxes, *x[1:], settings)
  sampled = jax.vmap(sample)(keys, sizes, truth)
  # Gathers [n, s, ...] from [n, a, ...] at places [n, s].
  take = jax.vmap(lambda x: x[0][x[1]])
  logits = take((jnp.concatenate(objectness, axis=1), sampled.places))
  codes = take((jnp.concatenate(codes, axis=1), sampled.places))
  wanted = sampled.codes, sampled.labels
  return {
    'proposal_objectness': losses.objectness(logits, sampled.labels),
    'proposal_boxes': losses.box_codes(codes, *wanted, settings.smooth_l1_beta),
  }


def _propose(
  parts: _Parts,
  objectness: Sequence[chex.Array],
  codes: Sequence[chex.Array],
  boxes: Sequence[chex.Array],
  sizes: chex.Array,
  *,
  is_training: bool,
) -> proposals.Proposals:
  """The best regions of every image."""

  def of_image(objectness, codes, size):
    return proposals.propose(
      objectness, codes, boxes, size, parts.settings, is_training=is_training
    )

  return jax.vmap(of_image)(objectness, codes, sizes)


def _box_losses(
  parts: _Parts, features: chex.Array, sampled: regions.Regions
) -> dict[str, Weighted]:
  """Of the box head, on sampled regions."""
  logits, codes = _predict_boxes(parts, features, sampled.labels.shape)
  # Each region is judged by the code of its own class. Background and empty slots take
  # any: their loss is zero.
  classes = jnp.clip(sampled.classes, 0, codes.shape[2] - 1)
  codes = jnp.take_along_axis(codes, classes[..., None, None], axis=2)[:, :, 0]
  beta = parts.settings.smooth_l1_beta
  return {
    'classes': losses.classification(logits, sampled.classes),
    'boxes': losses.box_codes(codes, sampled.codes, sampled.labels, beta),
  }


def _predict_boxes(
  parts: _Parts, features: chex.Array, shape: Sequence[int]
) -> tuple[chex.Array, chex.Array]:
  """Logits [n, r, C + 1] and codes [n, r, C, 4], of shape n, r."""
  predicted = parts.box_predictor(features)
  logits, codes = (x.reshape(*shape, *x.shape[1:]) for x in predicted)
  return logits, codes


def _mask_logits(
  parts: _Parts, levels: Sequence[chex.Array], rois: chex.Array, classes: chex.Array
) -> chex.Array:
  """Logits [n, r, M, M] of the masks in regions [n, r, 4] of classes [n, r]."""
  pooled = parts.trunk.pool(levels, rois, parts.settings.mask_pool)
  logits = parts.mask_head(pooled, classes.ravel())
  return logits.reshape(*classes.shape, *logits.shape[1:])


def _mask_loss(
  parts: _Parts,
  levels: Sequence[chex.Array],
  sampled: regions.Regions,
  truth: targets.Truth,
) -> Weighted:
  """Of the mask head, on the regions that may be positive, which come first."""
  most = parts.settings.max_positive_rois
  sampled = jax.tree.map(lambda x: x[:, :most], sampled)
  is_positive = sampled.labels == targets.POSITIVE
  # Any valid class serves where there is no object: the loss is zero there.
  classes = jnp.where(is_positive, sampled.classes, 0)
  logits = _mask_logits(parts, levels, sampled.boxes, classes)
  crop = lambda *x: regions.crop_masks(*x, output_size=logits.shape[-1])
  masks = jax.vmap(crop)(truth, sampled.boxes, sampled.objects)
  return losses.masks(logits, masks, sampled.labels)


def _detect(
  parts: _Parts, images: chex.Array, sizes: chex.Array
) -> proposals.Detections:
  """See `Detector.detect`."""
  levels = parts.trunk.levels(images, _content(sizes), is_training=False)
  predicted = parts.region_proposal_head(levels.maps)
  boxes = _anchors(parts, levels.maps)
  proposed = _propose(parts, *predicted, boxes, sizes, is_training=False)
  features = parts.trunk.box_features(
    levels, proposed.boxes, proposed.is_valid, is_training=False
  )
  logits, codes = _predict_boxes(parts, features, proposed.is_valid.shape)
  detect = lambda *x: proposals.detect(*x, parts.settings)
  found = jax.vmap(detect)(logits, codes, proposed, sizes)
  if not parts.mask_head:
    return found
  # Masks of the final boxes only, as in the paper: fewer, and better placed.
  logits = _mask_logits(parts, levels, found.boxes, found.classes)
  return found._replace(masks=jax.nn.sigmoid(logits))
