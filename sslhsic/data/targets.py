"""Checks of what an example holds besides its image, for all sources alike.

Messages name the field, and the object in it; whoever skips the example adds the file.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from sslhsic.data.annotations import VOID, Annotations
from sslhsic.data.errors import DecodeError

# Pixels by which boxes may reach beyond the image: annotation tools round.
_TOLERANCE = 1.0


def check(example: Mapping[str, Any], annotations: Annotations) -> None:
  """Checks the targets of an example against its image and its classes.

  Args:
    example: with the decoded 'image' [H, W, C], and 'annotated_size', the height and
      width that boxes were made for, if the data set says so.
    annotations: of its source.

  Raises:
    DecodeError: a target is of another size than the image, boxes or depths are not
      numbers that can be, or a class is none of the data set.
  """
  size = example['image'].shape[:2]
  for name in ('segmentation', 'depth', 'masks'):
    if name in example:
      check_size(name, example[name].shape[-2:], size)
  if 'annotated_size' in example:
    check_size('boxes', tuple(map(int, example['annotated_size'])), size)
  if 'segmentation' in example:
    _check_segmentation(example['segmentation'], len(annotations.segmentation_classes))
  if 'depth' in example:
    depth = example['depth']
    if not (np.isfinite(depth).all() and (depth >= 0).all()):
      raise DecodeError('depth has values that are negative, infinite or not a number')
  if 'boxes' in example:
    num_classes = len(annotations.object_classes)
    check_boxes(example['boxes'], example['classes'], size, num_classes)


def check_size(name: str, found: tuple[int, int], image: tuple[int, int]) -> None:
  """Raises an error if a target is not of the height and width of its image."""
  if tuple(found) == tuple(image):
    return
  turned = ''
  if tuple(found) == tuple(image[::-1]):
    turned = ', turned, as if its EXIF orientation had been ignored'
  raise DecodeError(
    f'the size of its {name} is {found[0]}×{found[1]} (height × width), but its own is '
    f'{image[0]}×{image[1]}{turned}; save both in one size and orientation'
  )


def _check_segmentation(classes: np.ndarray, num_classes: int) -> None:
  wrong = (classes >= num_classes) & (classes != VOID)
  if num_classes and wrong.any():
    raise DecodeError(
      f'segmentation has class {classes[wrong].max()} on {wrong.sum():,} pixels; '
      f'classes are 0 to {num_classes - 1}, and {VOID} where there is none'
    )


def check_boxes(
  boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], num_classes: int
) -> None:
  """Checks boxes [k, 4], (x1, y1, x2, y2), and classes [k] of an image.

  Raises:
    DecodeError: see `box_fault`; or a class is not below `num_classes`.
  """
  if len(boxes) != len(classes):
    raise DecodeError(f'there are {len(boxes)} boxes, but {len(classes)} classes')
  # Boxes are (x, y), a size is (height, width). NaN fails every comparison.
  limit = np.array([size[1], size[0]] * 2) + _TOLERANCE
  is_good = (boxes >= -_TOLERANCE) & (boxes <= limit)
  is_good[:, 2:] &= boxes[:, 2:] > boxes[:, :2]
  for number in np.flatnonzero(~is_good.all(axis=1)):
    x1, y1, x2, y2 = boxes[number].tolist()
    fault = box_fault([x1, y1, x2 - x1, y2 - y1], size)
    raise DecodeError(f'box {number} {fault}')
  for number in np.flatnonzero((classes < 0) | (classes >= num_classes)):
    raise DecodeError(
      f'box {number} has class {classes[number]}; classes are 0 to {num_classes - 1}'
    )


def box_fault(box: Any, size: tuple[int, int]) -> str:
  """What is wrong with (x, y, width, height) in an image [height, width], or ''."""
  if (
    not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box))
  ):
    return f'is {box!r:.80}; it has to be four numbers'
  x, y, width, height = box
  if not all(map(is_finite, box)):
    return f'is {box!r:.80}, which is not finite'
  if width <= 0 or height <= 0:
    return f'is {box}, of no extent'
  beyond = max(-x, -y, x + width - size[1], y + height - size[0])
  if beyond > _TOLERANCE:
    return (
      f'is {box} (x, y, width, height), {beyond:.0f} pixels beyond the image of '
      f'{size[0]}×{size[1]} (height × width)'
    )
  return ''


def is_finite(value: float) -> bool:
  """Whether a number is finite, also of a whole one that no float can hold."""
  return abs(value) <= sys.float_info.max


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
