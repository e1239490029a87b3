"""Pictures of flat shapes in a room, made up on the fly, of which all is known.

For trying out segmentation, depth and detection without any data set. A class is a
form: colours and textures say nothing about it. Some of what is seen is of no class.
"""

import dataclasses
import functools
from typing import ClassVar

import cv2
import numpy as np

from sslhsic.data import shapes_scene, splits
from sslhsic.data.annotations import VOID, Annotations
from sslhsic.data.origins import Origin

SIZES = {'train': 4000, 'test': 500}
_DEFAULT_SIDE = 96
_SIDES = range(32, 513)

_MIN_VISIBLE = 0.3  # Of a shape, else it is to be ignored.


@dataclasses.dataclass(frozen=True, eq=False)
class ShapesSource:
  """Two to four shapes each, with one label: the class of the one that is seen most.

  Attributes:
    side: of the pictures, in pixels.
    rows: [n, 2] of the examples: the number of the split and that within it, of which
      an example is a function.
  """

  side: int
  rows: np.ndarray

  num_classes: ClassVar[int] = len(shapes_scene.CLASSES)
  class_names: ClassVar[tuple[str, ...]] = shapes_scene.CLASSES
  # To know them, outlines of all examples are drawn.
  has_slow_labels: ClassVar[bool] = True
  annotations: ClassVar[Annotations] = Annotations(
    frozenset({'segmentation', 'depth', 'boxes', 'masks'}),
    ('background', *shapes_scene.CLASSES),
    shapes_scene.CLASSES,
  )

  @property
  def origin(self) -> Origin:
    """The split and the number in it, whatever the side."""
    return Origin('shapes', self.rows[:, 0] * max(SIZES.values()) + self.rows[:, 1])

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(self.rows[index])
    # Drawn before all else: `labels` draws the same layout, and nothing after it.
    room, shapes = shapes_scene.draw_layout(rng)
    seen, covered = shapes_scene.instances(shapes, self.side)
    image, depth = shapes_scene.paint(rng, room, shapes, covered)
    objects = _objects(shapes, seen, covered)
    return objects | {
      'image': image,
      'label': _label(shapes, seen),
      'depth': depth,
      'segmentation': _segmentation(seen, objects),
    }

  def name(self, index: int) -> str:
    """The split and the number of an example."""
    split, number = self.rows[index]
    return f'example {number} of shapes, {list(SIZES)[split]}'

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """[n] int32; draws the outlines of every example."""
    layouts = (shapes_scene.draw_layout(np.random.default_rng(x)) for x in self.rows)
    seen = lambda shapes: shapes_scene.instances(shapes, self.side)[0]
    return np.array([_label(shapes, seen(shapes)) for _, shapes in layouts], np.int32)


def create(argument: str, split: str) -> ShapesSource:
  """Made-up pictures.

  Args:
    argument: their side in pixels; '' for 96.
    split: parts, in TFDS's syntax, of 'train' (4,000) and 'test' (500).

  Raises:
    ValueError: the side is not a number from 32 to 512, or there is no such split.
  """
  if argument and not (argument.isdecimal() and int(argument) in _SIDES):
    raise ValueError(
      f"source 'shapes:{argument}' is unknown; use 'shapes:SIDE' with pictures of "
      f"{_SIDES[0]} to {_SIDES[-1]} pixels, or 'shapes'"
    )
  rows = [
    (list(SIZES).index(name), number)
    for name, part in splits.ranges(split, SIZES, 'shapes')
    for number in range(SIZES[name])[part]
  ]
  return ShapesSource(int(argument or _DEFAULT_SIDE), np.array(rows))


def _label(shapes: list[shapes_scene.Shape], seen: np.ndarray) -> np.int32:
  """The class of the shape of which most is seen."""
  area = np.bincount(seen.ravel(), minlength=len(shapes) + 1)[1:]
  return np.int32(shapes[area.argmax()].number)


def _objects(
  shapes: list[shapes_scene.Shape], seen: np.ndarray, covered: np.ndarray
) -> dict[str, np.ndarray]:
  """Boxes, masks and more of the shapes of which something is seen."""
  masks = (seen == np.arange(1, len(shapes) + 1)[:, None, None]).astype(np.uint8)
  area, whole = np.sum(masks, (1, 2)), np.sum(covered > 127, (1, 2))
  there = area > 0
  numbers = np.array([shape.number for shape in shapes], np.int32)
  boxes = np.array([cv2.boundingRect(mask) for mask in masks], np.float32)
  # (x, y, width, height) -> (x1, y1, x2, y2).
  boxes[:, 2:] += boxes[:, :2]
  return {
    'boxes': boxes[there],
    'classes': numbers[there],
    'ignore': (area < _MIN_VISIBLE * whole)[there],
    'area': area[there].astype(np.float32),
    'masks': masks[there],
  }


def _segmentation(seen: np.ndarray, objects: dict[str, np.ndarray]) -> np.ndarray:
  """The class of every pixel; void along outlines, and on what is to be ignored."""
  segmentation = np.zeros(seen.shape, np.uint8)
  for number, ignore, mask in zip(
    objects['classes'], objects['ignore'], objects['masks'], strict=True
  ):
    segmentation[mask > 0] = VOID if ignore else number + 1
  # A pixel is on an outline if its right or lower neighbour shows something else.
  segmentation[:, :-1][seen[:, :-1] != seen[:, 1:]] = VOID
  segmentation[:-1][seen[:-1] != seen[1:]] = VOID
  return segmentation
