"""PASCAL VOC 2012, segmentation, in the folders in which it is given out.

    PATH/JPEGImages/*.jpg
    PATH/SegmentationClass/*.png
    PATH/ImageSets/Segmentation/train.txt val.txt trainval.txt

PATH may also be the folder VOCdevkit above it, or the one above that. The 10,582 images
with the outlines of Hariharan et al. (2011) are the split 'train_aug', if there are

    PATH/SegmentationClassAug/*.png
    PATH/ImageSets/Segmentation/train_aug.txt (or trainaug.txt)
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from etils import epath

from sslhsic.data import splits
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import one_line, printable
from sslhsic.data.origins import Origin

OBJECTS = (
  *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair'),
  *('cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant'),
  *('sheep', 'sofa', 'train', 'tvmonitor'),
)

# Where the masks of a split are, by the name of its list.
_MASKS = {
  'train': 'SegmentationClass',
  'val': 'SegmentationClass',
  'trainval': 'SegmentationClass',
  'train_aug': 'SegmentationClassAug',
  'trainaug': 'SegmentationClassAug',
}


@dataclasses.dataclass(frozen=True, eq=False)
class VocSource:
  """Images with the class of every pixel, and without labels.

  Attributes:
    paths: [n] pairs, of an image and of its classes.
  """

  paths: Sequence[tuple[str, str]]

  num_classes: ClassVar[int] = 0
  annotations: ClassVar[Annotations] = Annotations(
    frozenset({'segmentation'}), ('background', *OBJECTS)
  )

  @property
  def labels(self) -> np.ndarray:
    """[n] int32, -1: there are none."""
    return np.full(len(self), -1, np.int32)

  @property
  def origin(self) -> Origin:
    """The paths of the images."""
    return Origin.of_paths([image for image, _ in self.paths])

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    image, segmentation = (epath.Path(path).read_bytes() for path in self.paths[index])
    return {'image': image, 'label': np.int32(-1), 'segmentation': segmentation}

  def path(self, index: int) -> str:
    """The path of an image, as it is on the disk."""
    return self.paths[index][0]

  def name(self, index: int) -> str:
    """The path of an image."""
    return printable(self.path(index))


def create(path: str, split: str) -> VocSource:
  """The images of VOC 2012 that are segmented.

  Args:
    path: of the folder VOC2012, of VOCdevkit, or of what that is in.
    split: parts in TFDS's syntax of 'train', 'validation' (or 'val'), 'trainval' and
      'train_aug' (or 'trainaug').

  Raises:
    ValueError: there is no such folder or split.
  """
  root = _root(path)
  lists = _lists(root, path)
  parts = splits.canonical(split)
  read = splits.to_read(parts, lists)
  pairs = {name: _pairs(root, lists[name]) for name in lists if name in read}
  sizes = {name: len(there) for name, there in pairs.items()}
  ranges = splits.ranges(parts, sizes, f'voc:{path}')
  return VocSource([pair for name, part in ranges for pair in pairs[name][part]])


def _root(path: str) -> epath.Path:
  above = epath.Path(path).expanduser()
  for root in (above, above / 'VOC2012', above / 'VOCdevkit' / 'VOC2012'):
    if path and (root / 'JPEGImages').is_dir():
      return root
  raise ValueError(
    f'there is no folder JPEGImages in {path!r}, nor in VOC2012 or VOCdevkit/VOC2012 '
    'below it; use voc:PATH, PATH the folder VOC2012'
  )


def _lists(root: epath.Path, path: str) -> dict[str, epath.Path]:
  """The files that name the images of the splits."""
  folder = root / 'ImageSets' / 'Segmentation'
  files = {name: folder / f'{name}.txt' for name in _MASKS}
  there = {
    splits.canonical(name): file
    for name, file in files.items()
    if file.exists() and (root / _MASKS[name]).is_dir()
  }
  if not there:
    raise ValueError(
      f'voc:{path} has no list such as {files["train"]}, or no folder '
      'SegmentationClass; unpack VOCtrainval_11-May-2012.tar whole'
    )
  return there


def _pairs(root: epath.Path, file: epath.Path) -> list[tuple[str, str]]:
  """Paths of images and masks. Lines are an image's name, or paths that end in it."""
  masks = root / _MASKS[file.stem]
  try:
    # 'utf-8-sig' drops the byte-order mark that some editors write.
    lines = file.read_bytes().decode('utf-8-sig').splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{os.fspath(file)} is no list of names in UTF-8: {one_line(error)}'
    ) from error
  names = [_name(line.strip()) for line in lines if line.strip()]
  return [
    (os.fspath(root / 'JPEGImages' / f'{name}.jpg'), os.fspath(masks / f'{name}.png'))
    for name in names
  ]


def _name(line: str) -> str:
  """The name of an image, without its folder and suffix."""
  path = line.split()[0] if '/' in line else line
  return re.sub(r'\.(jpe?g|png)$', '', pathlib.PurePosixPath(path).name)
