"""COCO 2017, detection, in the folders in which it is given out.

PATH/annotations/instances_train2017.json  PATH/annotations/instances_val2017.json
PATH/train2017/*.jpg                       PATH/val2017/*.jpg
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from etils import epath
from pycocotools import mask as coco_mask

from sslhsic.data import coco_file, splits
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import DecodeError, one_line, printable
from sslhsic.data.origins import Origin

_FOLDERS = {'train': 'train2017', 'validation': 'val2017'}


class Objects(NamedTuple):
  """All objects of a source, in the order of its images.

  Attributes:
    starts: [images + 1], the first object of every image, and the end.
    boxes: [n, 4] float32, (x1, y1, x2, y2).
    classes: [n] int32.
    ignore: [n] bool.
    area: [n] float32.
    first_polygons: [n + 1], the first polygon of every object, and the end.
    polygons: float32, x and y by turns, one after the other.
    polygon_starts: [polygons + 1], where each starts, and the end.
    runs: masks of objects without polygons, in pycocotools' code, by their number.
  """

  starts: np.ndarray
  boxes: np.ndarray
  classes: np.ndarray
  ignore: np.ndarray
  area: np.ndarray
  first_polygons: np.ndarray
  polygons: np.ndarray
  polygon_starts: np.ndarray
  runs: dict[int, dict]

  def mask(self, number: int, height: int, width: int) -> np.ndarray:
    """Of one object, as COCO's own code draws it: uint8 [height, width]."""
    if number in self.runs:
      return coco_mask.decode(self.runs[number])
    # The file has two decimals, of which single precision would lose ties.
    first, end = self.first_polygons[number : number + 2]
    starts = self.polygon_starts[first : end + 1]
    polygons = [
      np.round(self.polygons[start:stop].astype(np.float64), 2).tolist()
      for start, stop in itertools.pairwise(starts)
    ]
    runs = coco_mask.frPyObjects(polygons, height, width)
    return coco_mask.decode(coco_mask.merge(runs))


@dataclasses.dataclass(frozen=True, eq=False)
class CocoSource:
  """Images with the boxes, classes and masks of their objects, and without labels.

  Attributes:
    paths: [n], of the images.
    image_ids: [n], COCO's.
    sizes: [n, 2], their heights and widths.
    objects: of all images.
    class_names: of the objects.
    category_ids: COCO's number of every class.
    has_masks: whether every object has an outline.
  """

  paths: Sequence[str]
  image_ids: np.ndarray
  sizes: np.ndarray
  objects: Objects
  class_names: tuple[str, ...]
  category_ids: tuple[int, ...]
  has_masks: bool = True

  num_classes: ClassVar[int] = 0

  @property
  def annotations(self) -> Annotations:
    """Boxes, and masks if all objects have one."""
    kinds = {'boxes', 'masks'} if self.has_masks else {'boxes'}
    return Annotations(frozenset(kinds), object_classes=self.class_names)

  @property
  def description(self) -> str:
    """That there are no masks, if so."""
    if self.has_masks:
      return ''
    return 'coco: boxes only, as some objects of this split have no segmentation'

  @property
  def origin(self) -> Origin:
    """The paths of the images."""
    return Origin.of_paths(self.paths)

  @property
  def labels(self) -> np.ndarray:
    """[n] int32, -1: there are none."""
    return np.full(len(self), -1, np.int32)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    image = epath.Path(self.paths[index]).read_bytes()
    objects, starts = self.objects, self.objects.starts
    here = slice(starts[index], starts[index + 1])
    example = {
      'image': image,
      'label': np.int32(-1),
      'boxes': objects.boxes[here],
      'classes': objects.classes[here],
      'ignore': objects.ignore[here],
      'area': objects.area[here],
      'annotated_size': self.sizes[index],
    }
    if 'masks' in self.annotations.kinds:
      height, width = map(int, self.sizes[index])
      example['masks'] = Masks(
        objects, here.start, (len(example['boxes']), height, width)
      )
    return example

  def path(self, index: int) -> str:
    """The path of an image, as it is on the disk."""
    return self.paths[index]

  def name(self, index: int) -> str:
    """The path of an image."""
    return printable(self.path(index))


class Masks:
  """The masks of an image, uint8 [k, H, W], each drawn when it is asked for.

  Attributes:
    shape: k, H and W.
  """

  dtype = np.dtype(np.uint8)

  def __init__(self, objects: Objects, first: int, shape: tuple[int, int, int]):
    self._objects, self._first = objects, first
    self.shape = shape

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, place: int) -> np.ndarray:
    """The mask [H, W] of an object.

    Raises:
      DecodeError: its run-length code is damaged.
    """
    # Resolves negative places, and raises the IndexError that ends an iteration.
    place = range(len(self))[place]
    try:
      return self._objects.mask(self._first + place, *self.shape[1:])
    except (TypeError, ValueError) as error:
      raise DecodeError(f'segmentation of object {place}: {one_line(error)}') from error


def create(path: str, split: str) -> CocoSource:
  """The images of COCO 2017.

  Args:
    path: of the folder that holds 'annotations', 'train2017' and 'val2017'.
    split: parts in TFDS's syntax of 'train' and 'validation' (or 'val'). Images without
      any object but crowds are not in 'train'.

  Raises:
    ValueError: there is no such file or split, or a file has entries that do not fit
      together; see `coco_file`.
  """
  root = epath.Path(path).expanduser()
  files = {
    name: root / 'annotations' / f'instances_{folder}.json'
    for name, folder in _FOLDERS.items()
  }
  there = [name for name, file in files.items() if path and file.exists()]
  if not there:
    raise ValueError(
      f'there is no {files["train"]}; use coco:PATH, PATH the folder that holds '
      "COCO's 'annotations' and 'train2017'"
    )
  parts = splits.canonical(split, {folder: name for name, folder in _FOLDERS.items()})
  read = splits.to_read(parts, there)
  found = {
    name: coco_file.read(files[name], root / _FOLDERS[name]) for name in sorted(read)
  }
  categories = next(iter(found.values())).categories
  for name, content in found.items():
    if content.categories != categories:
      raise ValueError(
        f'{files[name]} has other categories than {files[next(iter(found))]}; read one '
        'split at a time, or give both files the same list'
      )
  examples = {name: content.examples for name, content in found.items()}
  # Filtered before the parts are cut, so that 'train[:10%]' counts what remains.
  if 'train' in examples:
    examples['train'] = [x for x in examples['train'] if x.has_objects]
  sizes = {name: len(there) for name, there in examples.items()}
  chosen = [
    example
    for name, part in splits.ranges(parts, sizes, f'coco:{path}')
    for example in examples[name][part]
  ]
  return CocoSource(
    paths=[example.path for example in chosen],
    image_ids=np.array([example.image_id for example in chosen]),
    sizes=np.array([example.size for example in chosen]),
    objects=_pack([example.objects for example in chosen], list(categories)),
    class_names=tuple(categories.values()),
    category_ids=tuple(categories),
    has_masks=all(x.outline for example in chosen for x in example.objects),
  )


def _pack(of_images: list[list[coco_file.Object]], category_ids: list[int]) -> Objects:
  """The objects of images, as arrays."""
  # Few large arrays instead of many small ones: they pickle quickly for the workers.
  flat = [entry for entries in of_images for entry in entries]
  boxes = np.array([entry.box for entry in flat], np.float32).reshape(-1, 4)
  # (x, y, width, height) -> (x1, y1, x2, y2).
  boxes[:, 2:] += boxes[:, :2]
  outlines = [x.outline if isinstance(x.outline, list) else [] for x in flat]
  polygons = [polygon for outline in outlines for polygon in outline]
  runs = {
    number: _runs(entry.outline)
    for number, entry in enumerate(flat)
    if isinstance(entry.outline, dict)
  }
  # The ids ascend and all are known, so the place of an id is its class.
  classes = np.searchsorted(category_ids, [entry.category_id for entry in flat])
  return Objects(
    starts=_starts(of_images),
    boxes=boxes,
    classes=classes.astype(np.int32),
    ignore=np.array([entry.is_crowd for entry in flat], bool),
    area=np.array([entry.area for entry in flat], np.float32),
    first_polygons=_starts(outlines),
    # `concatenate` needs an array even where no object has a polygon.
    polygons=np.concatenate([np.zeros(0, np.float32), *polygons]),
    polygon_starts=_starts(polygons),
    runs=runs,
  )


def _starts(rows: list) -> np.ndarray:
  """Where each starts if they lie one after the other, and the end: [rows + 1]."""
  return np.cumsum([0, *map(len, rows)])


def _runs(outline: dict) -> dict:
  """Run lengths in pycocotools' code; a file may have them as a list."""
  if isinstance(outline['counts'], list):
    return coco_mask.frPyObjects(outline, *outline['size'])
  return outline
