"""Object detection: average precision of PASCAL VOC, and of COCO by pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import numpy as np
from pycocotools import coco, cocoeval
from pycocotools import mask as rle

from sslhsic.evaluation import metrics
from sslhsic.tasks.detection import proposals

_THRESHOLD = 0.5  # Probability from which on a pixel is in a mask.
_COCO_SCORES = ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')
_IOU_TYPES = {'boxes': 'bbox', 'masks': 'segm'}


class GroundTruth(NamedTuple):
  """The objects of an image.

  Attributes:
    size: its height and width.
    boxes: [k, 4] float, (x1, y1, x2, y2) in pixels, continuous.
    classes: [k] int.
    ignore: [k] bool, whether an object is neither to be found nor wrong to find.
    area: [k], in pixels.
    masks: k run-length codes of pycocotools; None without masks.
  """

  size: tuple[int, int]
  boxes: np.ndarray
  classes: np.ndarray
  ignore: np.ndarray
  area: np.ndarray
  masks: list[dict] | None


class Found(NamedTuple):
  """What was found in an image.

  Attributes:
    boxes: [d, 4] float, in pixels of the original image.
    scores: [d].
    classes: [d] int.
    masks: d run-length codes of pycocotools; None without masks.
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  masks: list[dict] | None


def ground_truth(
  example: Mapping[str, np.ndarray], size: tuple[int, int]
) -> GroundTruth:
  """The objects of a source's example, whose image has this height and width."""
  masks = None
  if 'masks' in example:
    masks = [encode_mask(mask) for mask in example['masks']]
  names = 'boxes', 'classes', 'ignore', 'area'
  return GroundTruth(size, *(np.asarray(example[name]) for name in names), masks)


def found(
  detections: proposals.Detections, scale: np.ndarray, size: tuple[int, int]
) -> Found:
  """What a network has found in one image, in pixels of the original.

  Args:
    detections: of the image, [D, ...] arrays.
    scale: [2], by what height and width were multiplied before the network.
    size: original height and width.
  """
  is_valid = np.asarray(detections.is_valid)
  boxes, scores, classes = (np.asarray(x)[is_valid] for x in detections[:3])
  # The scale is (height, width), boxes are (x, y, x, y).
  boxes = boxes / np.asarray(scale)[[1, 0, 1, 0]]
  masks = None
  if detections.masks is not None:
    of_boxes = zip(np.asarray(detections.masks)[is_valid], boxes, strict=True)
    masks = [encode_mask(paste_mask(*mask_and_box, size)) for mask_and_box in of_boxes]
  return Found(boxes, scores, classes, masks)


def paste_mask(
  probabilities: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """The pixels of an image that are in a mask.

  Args:
    probabilities: [M, M], interpolated between the centres of its cells (bilinear), and
      to 0 outside of them.
    box: [4], where the mask lies in the image.
    size: height and width of the image.

  Returns:
    [height, width] uint8.
  """
  x1, y1, x2, y2 = box
  cells = np.arange(len(probabilities))

  def inside(start: float, end: float, length: int) -> tuple[slice, np.ndarray]:
    """The pixels in the box, and how much of each cell there is in each: [n, M]."""
    pixels = np.arange(max(int(start), 0), min(int(np.ceil(end)), length))
    # The centre of each pixel in cells of the mask, relative to the cells' centres.
    place = (pixels + 0.5 - start) / max(end - start, 1e-6) * len(cells) - 0.5
    weights = np.maximum(1 - np.abs(place[:, None] - cells), 0)
    # A box outside the image has no pixels: an empty slice.
    return slice(pixels[0], pixels[-1] + 1) if len(pixels) else slice(0), weights

  (rows, of_rows), (columns, of_columns) = (
    inside(y1, y2, size[0]),
    inside(x1, x2, size[1]),
  )
  mask = np.zeros(size, np.uint8)
  # Bilinear and separable: [h, M] · [M, M] · [M, w].
  mask[rows, columns] = of_rows @ probabilities @ of_columns.T >= _THRESHOLD
  return mask


def encode_mask(mask: np.ndarray) -> dict:
  """Run-length code of a mask [H, W] of 0 and 1."""
  return rle.encode(np.asfortranarray(mask, np.uint8))


def voc_average_precisions(
  truths: Sequence[GroundTruth],
  founds: Sequence[Found],
  num_classes: int,
  threshold: float = 0.5,
) -> np.ndarray:
  """Average precision of every class as in PASCAL VOC 2007's development kit.

  Everingham et al. (2010), The PASCAL Visual Object Classes Challenge, section 4.2:
  from the highest score down, a detection is right if, of its class, the object that it
  overlaps most has at least this IoU and was not found before. What so overlaps an
  object that is to be ignored does not count; all others are wrong. The precision is
  that of `metrics.mean_average_precision`.

  Returns:
    [C] float64; NaN for a class without an object.
  """
  chex.assert_equal(len(truths), len(founds))
  return np.array(
    [_voc_of_class(truths, founds, number, threshold) for number in range(num_classes)]
  )


def _voc_of_class(
  truths: Sequence[GroundTruth],
  founds: Sequence[Found],
  number: int,
  threshold: float,
) -> float:
  num_positives = sum(
    np.count_nonzero((truth.classes == number) & ~truth.ignore) for truth in truths
  )
  if not num_positives:
    return np.nan
  judged = [
    _judge(truth, found, number, threshold)
    for truth, found in zip(truths, founds, strict=True)
  ]
  scores, is_right = (np.concatenate(x) for x in zip(*judged, strict=True))
  return metrics.eleven_point_precision(scores, is_right, num_positives)


def _judge(
  truth: GroundTruth, found: Found, number: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
  """Scores of what counts of a class in an image, and whether each is right."""
  of_class = truth.classes == number
  boxes, ignore = truth.boxes[of_class], truth.ignore[of_class]
  of_class = found.classes == number
  order = np.argsort(-found.scores[of_class], kind='stable')
  scores = found.scores[of_class][order]
  # Nothing to find in this image: every detection of the class is wrong.
  if not len(boxes):
    return scores, np.zeros(len(scores), bool)
  overlaps = iou(found.boxes[of_class][order], boxes)
  counts, is_right = np.ones(len(scores), bool), np.zeros(len(scores), bool)
  was_found = np.zeros(len(boxes), bool)
  # From the highest score down: a second detection of an object is wrong.
  for i, row in enumerate(overlaps):
    best = np.argmax(row)
    if row[best] >= threshold:
      counts[i] = not ignore[best]
      is_right[i] = not was_found[best]
      was_found[best] = True
  return scores[counts], is_right[counts]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [n, 4] and [m, 4], n and m > 0 -> [n, m]."""
  return rle.iou(_as_corner_and_size(a), _as_corner_and_size(b), [0] * len(b))


def coco_average_precision(
  truths: Sequence[GroundTruth], founds: Sequence[Found], num_classes: int, kind: str
) -> dict[str, float]:
  """COCO's average precision, by pycocotools.

  Args:
    truths: of every image.
    founds: likewise.
    num_classes: C.
    kind: 'boxes' or 'masks'.

  Returns:
    'ap' (mean over the IoU thresholds 0.5, 0.55, …, 0.95), 'ap50', 'ap75', and 'ap' of
    'ap_small', 'ap_medium' and 'ap_large' objects; without those that no object has.
  """
  chex.assert_equal(len(truths), len(founds))
  with contextlib.redirect_stdout(io.StringIO()):  # It prints all it does.
    scores = cocoeval.COCOeval(
      _index(truths, truths, num_classes, kind),
      _index(truths, founds, num_classes, kind),
      _IOU_TYPES[kind],
    )
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
  named = zip(_COCO_SCORES, scores.stats[: len(_COCO_SCORES)], strict=True)
  # pycocotools gives −1 where there is no object of a size.
  return {name: float(score) for name, score in named if score >= 0}


def _index(
  truths: Sequence[GroundTruth],
  images: Sequence[GroundTruth | Found],
  num_classes: int,
  kind: str,
) -> coco.COCO:
  """COCO's index of true or found objects; its numbers begin with 1."""
  objects = [
    {'image_id': number} | annotation
    for number, image in enumerate(images, 1)
    for annotation in _annotations(image, kind)
  ]
  index = coco.COCO()
  # An annotation numbered 0 would read as "no match" in pycocotools.
  index.dataset = {
    'images': [
      {'id': number, 'height': truth.size[0], 'width': truth.size[1]}
      for number, truth in enumerate(truths, 1)
    ],
    'categories': [{'id': number} for number in range(1, num_classes + 1)],
    'annotations': [{'id': number} | x for number, x in enumerate(objects, 1)],
  }
  index.createIndex()
  return index


def _annotations(image: GroundTruth | Found, kind: str) -> list[dict]:
  """The objects of an image in COCO's format."""
  boxes = _as_corner_and_size(image.boxes)
  if isinstance(image, GroundTruth):
    area = image.area
    # What overlaps a crowd is neither right nor wrong, as with `ignore`.
    others = [{'iscrowd': int(ignore)} for ignore in image.ignore]
  else:
    area = boxes[:, 2] * boxes[:, 3] if kind == 'boxes' else rle.area(image.masks)
    others = [{'iscrowd': 0, 'score': float(score)} for score in image.scores]
  annotations = [
    {'category_id': int(number) + 1, 'bbox': list(box), 'area': float(a)} | other
    for number, box, a, other in zip(image.classes, boxes, area, others, strict=True)
  ]
  if kind == 'boxes':
    return annotations
  pairs = zip(annotations, image.masks, strict=True)
  return [annotation | {'segmentation': mask} for annotation, mask in pairs]


def _as_corner_and_size(boxes: np.ndarray) -> np.ndarray:
  """(x, y, width, height) of boxes [n, 4]."""
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
