"""Reads an annotation file in COCO's format, and checks that its entries fit together.

`iscrowd` and `area` may be missing (0; the area of the box), and so may `segmentation`.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sslhsic.data import targets
from sslhsic.data.errors import one_line, printable

_MOST_FAULTS = 3  # In a message.


class Object(NamedTuple):
  """An entry of 'annotations' in a file.

  Attributes:
    number: its own id.
    image_id: of its image.
    category_id: of its class.
    box: x, y, width and height.
    area: in pixels.
    is_crowd: whether it is a crowd.
    outline: polygons, run-length code, or None.
  """

  number: Any
  image_id: Any
  category_id: Any
  box: Any
  area: float
  is_crowd: bool
  outline: list[np.ndarray] | dict | None


class Example(NamedTuple):
  """An image, and its objects."""

  path: str
  image_id: Any
  size: tuple[int, int]
  objects: list[Object]

  @property
  def has_objects(self) -> bool:
    """Whether there is any but crowds."""
    return any(not entry.is_crowd for entry in self.objects)


class Content(NamedTuple):
  """What a file holds: images in its order; names of categories by id, ascending."""

  examples: list[Example]
  categories: dict[int, str]


def read(file: epath.Path, folder: epath.Path) -> Content:
  """The images and objects of a file.

  Objects of a box without extent, of which there are a few in COCO, are left out.

  Args:
    file: the annotations.
    folder: of the images.

  Raises:
    ValueError: the file is no JSON of this format, or entries of it are faulty; the
      message names their ids and fields.
  """
  content = _parse(file)
  faults = []
  categories = _categories(content['categories'], faults)
  examples = _images(content['images'], folder, faults)
  _check(faults, file)  # Else objects have faults of their images and classes.
  for entry in content['annotations']:
    fault = entry if isinstance(entry, str) else _fault(entry, examples, categories)
    if fault:
      faults.append(fault)
    elif min(entry.box[2:]) > 0:
      examples[entry.image_id].objects.append(entry)
  _check(faults, file)
  return Content(list(examples.values()), categories)


def _check(faults: list[str], file: epath.Path) -> None:
  if faults:
    more = f'; and {len(faults) - _MOST_FAULTS:,} more' * (len(faults) > _MOST_FAULTS)
    raise ValueError(
      f'{os.fspath(file)} has {len(faults):,} fault(s): '
      f'{"; ".join(faults[:_MOST_FAULTS])}{more}. Correct or remove these entries'
    )


def _parse(file: epath.Path) -> dict[str, list]:
  try:
    content = json.loads(file.read_bytes(), object_hook=_compact)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{os.fspath(file)} is no valid JSON, it may be truncated: {one_line(error)}'
    ) from error
  for key in ('images', 'annotations', 'categories'):
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
      raise ValueError(
        f"{os.fspath(file)} has no list {key!r}; use a file in COCO's format with "
        "'images', 'annotations' and 'categories'"
      )
  return content


def _compact(entry: dict) -> dict | Object | str:
  """What is needed of an object of the file, as soon as it is parsed; or its fault.

  The numbers of all outlines take gigabytes as Python's floats.
  """
  # The parser passes every JSON object of the file; only annotations refer to an image.
  is_image = 'file_name' in entry and 'bbox' not in entry
  if is_image or 'image_id' not in entry or 'images' in entry:
    return entry
  number = entry.get('id')
  for key in ('category_id', 'bbox'):
    if key not in entry:
      return f'annotation {number!r} has no {key}'
  outline = entry.get('segmentation')
  if isinstance(outline, list):
    polygons = [_polygon(polygon) for polygon in outline]
    if any(polygon is None for polygon in polygons):
      return (
        f'annotation {number!r} has a segmentation that is no list of polygons, each '
        f'of at least three points x, y: {outline!r:.60}'
      )
    outline = polygons
  box = entry['bbox']
  area = entry.get('area')
  # A box that is not four numbers gets the area 0 for now; `_fault` reports it later.
  if area is None:
    is_box = isinstance(box, list) and len(box) == 4
    area = box[2] * box[3] if is_box and all(map(_is_finite, box)) else 0.0
  if not _is_finite(area) or area < 0:
    return f'annotation {number!r} has the area {area!r:.40}; it has to be a number'
  is_crowd = entry.get('iscrowd') or 0
  if is_crowd not in (0, 1):
    return f'annotation {number!r} has iscrowd {is_crowd!r:.40}; it has to be 0 or 1'
  # The box stays unchecked until all images, whose sizes bound it, are read.
  return Object(
    number,
    entry['image_id'],
    entry['category_id'],
    tuple(box) if isinstance(box, list) else box,
    float(area),
    bool(is_crowd),
    outline or None,
  )


def _polygon(points: Any) -> np.ndarray | None:
  """x and y by turns, float32; None if these are not three points or more."""
  if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
    return None
  try:
    polygon = np.array(points)
  except ValueError:  # Of several lengths.
    return None
  # The kinds 'i' and 'f' exclude strings and Booleans, which `astype` would convert.
  is_good = (
    polygon.ndim == 1 and polygon.dtype.kind in 'if' and np.isfinite(polygon).all()
  )
  return polygon.astype(np.float32) if is_good else None


def _is_finite(value: Any) -> bool:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and targets.is_finite(value)


def _categories(entries: list, faults: list[str]) -> dict[int, str]:
  """Names by id."""
  found = {}
  for entry in entries:
    number, name = (
      (entry.get('id'), entry.get('name')) if isinstance(entry, dict) else (None, None)
    )
    if not _is_id(number) or not isinstance(name, str) or not name:
      faults.append(f'category {number!r} has no whole number id, or no name')
    elif number in found or name in found.values():
      faults.append(f'category {number!r} ({name!r}) is there twice')
    else:
      found[number] = name
  if not entries:
    faults.append('categories is empty')
  # Ids may have gaps (COCO's 80 reach 90): the class is the place among ascending ids.
  return dict(sorted(found.items()))


def _images(entries: list, folder: epath.Path, faults: list[str]) -> dict[Any, Example]:
  """Images by id, without objects as yet."""
  found = {}
  for entry in entries:
    fault = _image_fault(entry)
    if fault:
      faults.append(fault)
    elif entry['id'] in found:
      faults.append(f'image {entry["id"]!r} is there twice')
    else:
      path = f'{os.fspath(folder)}/{entry["file_name"]}'
      size = (entry['height'], entry['width'])
      found[entry['id']] = Example(path, entry['id'], size, [])
  return found


def _image_fault(entry: Any) -> str:
  if not isinstance(entry, dict) or not isinstance(entry.get('id'), int | str):
    return f'image {entry!r:.60} has no id'
  title, name = f'image {entry["id"]!r}', entry.get('file_name')
  if not isinstance(name, str) or not name:
    return f'{title} has no file_name'
  # A name may lead into a subfolder, but not out of the folder of images.
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts or '\0' in name or '://' in name:
    return (
      f'{title} has the file_name {printable(name)!r}, outside the folder of images'
    )
  for key in ('height', 'width'):
    if not _is_id(entry.get(key)) or entry[key] < 1:
      return f'{title} has the {key} {entry.get(key)!r:.40}; it has to be a number > 0'
  return ''


def _is_id(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _fault(
  entry: Object | dict, examples: dict[Any, Example], categories: dict[int, str]
) -> str:
  """What is wrong with an object, or ''."""
  if not isinstance(entry, Object):
    return f'annotation {entry!r:.60} has no image_id'
  title = f'annotation {entry.number!r}'
  # Lists and dicts have no hash: looking them up would raise a TypeError.
  if isinstance(entry.image_id, list | dict) or entry.image_id not in examples:
    return f'{title} has the image_id {entry.image_id!r:.40}, which no image has'
  if not isinstance(entry.category_id, int | float) or (
    entry.category_id not in categories
  ):
    return (
      f'{title} (image {entry.image_id!r}) has the category_id '
      f'{entry.category_id!r:.40}, which no category has'
    )
  size = examples[entry.image_id].size
  fault = targets.box_fault(entry.box, size)
  # COCO itself has a few boxes whose sides are zero.
  if fault and not _is_flat(entry.box):
    return f'{title} (image {entry.image_id!r}): bbox {fault}'
  fault = _runs_fault(entry.outline, size) if isinstance(entry.outline, dict) else ''
  if fault or isinstance(entry.outline, str | int | float):
    fault = fault or f'is {entry.outline!r:.40}'
    return f'{title} (image {entry.image_id!r}): segmentation {fault}'
  return ''


def _is_flat(box: Any) -> bool:
  is_box = isinstance(box, tuple) and len(box) == 4 and all(map(_is_finite, box))
  return is_box and min(box[2:]) == 0


def _runs_fault(runs: dict, size: tuple[int, int]) -> str:
  """What is wrong with a run-length code for an image of a height and width, or ''."""
  counts = runs.get('counts')
  if runs.get('size') != list(size):
    return f'is a run-length code of size {runs.get("size")!r:.40}, not {list(size)}'
  if isinstance(counts, str):
    return ''  # Its length shows when it is decoded.
  if not isinstance(counts, list) or not all(map(_is_id, counts)):
    return f'has counts that are {type(counts).__name__}, no run lengths'
  if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
    return f'has counts of {sum(counts):,} pixels, the image has {size[0] * size[1]:,}'
  return ''
