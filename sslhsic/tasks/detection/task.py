"""Object detection as a task, see `sslhsic.tasks.task`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import numpy as np

from sslhsic import collectives
from sslhsic.data import image_sizes, sources
from sslhsic.plots import sheets
from sslhsic.tasks import task
from sslhsic.tasks.detection import detector, examples, proposals, scores, targets

_LEAST_SCORE = 0.5  # Of the objects on the sheet of examples.


@dataclasses.dataclass(frozen=True)
class Detection:
  """Detection of boxes and, if the examples have them, masks; scored by their AP.

  Attributes:
    architecture: name of the detector, for the protocol.
    class_names: of the C classes of objects, by their number.
    network: the detector, with a mask head if the examples have masks.
    training_example, test_example: make the arrays of an example.
    axis_name: the mapped axis of the devices, if any.
  """

  name: ClassVar = 'detection'
  criterion: ClassVar = 'box_ap'

  architecture: str
  class_names: tuple[str, ...]
  network: detector.Detector
  training_example: examples.DetectionExample
  test_example: examples.DetectionExample
  axis_name: str | None = None

  @property
  def kinds(self) -> tuple[str, ...]:
    """The annotations that it needs."""
    return ('boxes', 'masks') if self._with_masks else ('boxes',)

  @property
  def head_of_encoder(self) -> tuple[str, ...]:
    """Parts of the names of the encoder's modules that are the box head."""
    return self.network.head_of_encoder

  def groups(self, source: sources.Source) -> np.ndarray:
    """Which images are upright, [n] bool, where these are padded to a shape of theirs.

    Raises:
      InputError: an image cannot be read.
    """
    height, width = self.test_example.padded
    if height == width:
      return np.zeros(len(source), bool)
    return examples.is_upright(image_sizes.of(source))

  @property
  def _with_masks(self) -> bool:
    return self.test_example.mask_size > 0

  def outputs(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: task.Batch,
    keys: chex.PRNGKey,
  ) -> tuple[dict[str, collectives.Weighted], hk.State]:
    """The losses of what is sampled in every image, by head."""
    names = 'boxes', 'classes', 'ignore', 'masks'
    # Batches of a detector of boxes have no masks: None.
    truth = targets.Truth(*(batch.get(name) for name in names))
    return self.network.losses(
      params, network_state, None, images, batch['size'], truth, keys
    )

  def loss(
    self, outputs: dict[str, collectives.Weighted], batch: task.Batch
  ) -> task.Loss:
    """The sum of the mean losses of all heads; each of them is logged."""
    del batch  # The outputs are the losses.
    means = {name: losses.mean(self.axis_name) for name, losses in outputs.items()}
    return sum(means.values()), means

  def predict(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: task.Batch,
  ) -> dict[str, chex.ArrayTree]:
    """The detections in every image, and what relates them to the source's example."""
    detections, _ = self.network.detect(
      params, network_state, None, images, batch['size']
    )
    where = {name: batch[name] for name in ('row', 'size', 'scale')}
    return where | {'detections': detections}

  def score(
    self, predictions: Iterable[dict[str, chex.ArrayTree]], source: sources.Source
  ) -> task.Scores:
    """AP50 of VOC, and AP of COCO of boxes and masks; AP50 of every class."""
    # Detections are ranked over the whole split, so all of them are collected first.
    truths, founds = [], []
    for batch in predictions:
      for i in range(len(batch['row'])):
        truth, found = _in_own_pixels(jax.tree.map(lambda x, i=i: x[i], batch), source)
        truths.append(truth)
        founds.append(found)
    num_classes = len(self.class_names)
    ap50 = scores.voc_average_precisions(truths, founds, num_classes)
    # The score of a class without an object is NaN.
    scalars = {'voc_ap50': float(np.nanmean(ap50))}
    kinds = {'box': 'boxes'} | ({'mask': 'masks'} if self._with_masks else {})
    for prefix, kind in kinds.items():
      ap = scores.coco_average_precision(truths, founds, num_classes, kind)
      scalars |= {f'{prefix}_{name}': score for name, score in ap.items()}
    named = zip(self.class_names, ap50, strict=True)
    details = {'ap50': {name: float(ap) for name, ap in named if not np.isnan(ap)}}
    return task.Scores(scalars, details)

  def sheet(
    self, shown: Sequence[tuple[dict[str, np.ndarray], Any]]
  ) -> dict[str, list[np.ndarray]]:
    """Images with their true objects, and with those that were found."""
    return {
      'truth': [self._draw(batch, _true_objects(batch)) for batch, _ in shown],
      'prediction': [
        self._draw(batch, _found_objects(prediction['detections']))
        for batch, prediction in shown
      ],
    }

  def _draw(self, batch: dict[str, np.ndarray], objects: '_Objects') -> np.ndarray:
    """An image with objects, in the size in which the network saw it."""
    height, width = batch['size'].astype(int)
    size = int(height), int(width)
    masks = objects.masks
    if masks is not None:
      pairs = zip(masks, objects.boxes, strict=True)
      masks = [scores.paste_mask(mask, box, size) for mask, box in pairs]
    image = batch['image'][:height, :width]
    return sheets.of_objects(
      image, objects.boxes, objects.classes, self.class_names, masks
    )

  def protocol(self, training: str) -> dict[str, str]:
    """How each score was measured."""
    example = self.training_example
    ranges = [
      f'{low}' if low == high else f'{low} to {high}'
      for low, high, _ in (example.shorter, example.longer)
    ]
    how = (
      f'{self.architecture} detector; {training}, images scaled to at most {ranges[0]} '
      f'px on the shorter and {ranges[1]} px on the longer side in training'
      f'{" and mirrored" * example.flip}, to {self.test_example.shorter[0]} and '
      f'{self.test_example.longer[0]} px in the test; '
    )
    coco = how + "COCO's average precision by pycocotools, of "
    protocol = {
      'voc_ap50': how + '11-point average precision at an IoU of 0.5 as in PASCAL VOC '
      '2007, mean over the classes',
      'box_ap': coco + 'boxes',
    }
    if self._with_masks:
      protocol['mask_ap'] = coco + 'masks'
    return protocol


def _in_own_pixels(
  prediction: dict[str, chex.ArrayTree], source: sources.Source
) -> tuple[scores.GroundTruth, scores.Found]:
  """The true objects of an example, and those found, in pixels of its own image."""
  # size / scale is the size of the original image, up to rounding.
  height, width = np.round(prediction['size'] / prediction['scale']).astype(int)
  size = int(height), int(width)
  truth = scores.ground_truth(source[int(prediction['row'])], size)
  found = scores.found(prediction['detections'], prediction['scale'], size)
  return truth, found


class _Objects(NamedTuple):
  """Objects in an image: boxes [k, 4], classes [k], masks [k, G, G] of their boxes."""

  boxes: np.ndarray
  classes: np.ndarray
  masks: np.ndarray | None


def _true_objects(batch: dict[str, np.ndarray]) -> _Objects:
  """The objects of an example that are to be found."""
  there = (batch['classes'] >= 0) & ~batch['ignore']
  masks = batch['masks'][there] / 255 if 'masks' in batch else None
  return _Objects(batch['boxes'][there], batch['classes'][there], masks)


def _found_objects(found: proposals.Detections) -> _Objects:
  """The detections in an image that are certain enough to be shown."""
  there = found.scores >= _LEAST_SCORE
  masks = None if found.masks is None else found.masks[there]
  return _Objects(found.boxes[there], found.classes[there], masks)
