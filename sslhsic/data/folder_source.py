"""A folder of images on disk, or on any file system that etils knows (gs://…).

    PATH/train/CLASS/*.jpg  PATH/val/CLASS/*.jpg     splits, each with a folder a class
    PATH/train/*.jpg        PATH/val/*.jpg           splits of unlabelled images
    PATH/CLASS/*.jpg                                 one split, 'train'
    PATH/*.jpg                                       one split, unlabelled

Names of splits may have any case, and be variants such as 'Training', 'valid' or
'val2017'. A folder that holds everything, such as PATH/images/train, makes no
difference. Below the folder of a class images may lie at any depth. Files are those of
`images.SUFFIXES`; others are counted. Classes are numbered in the order of their names,
over all splits. Examples come in an order that is random but the same everywhere, given
by a hash of their paths, so that a part such as 'train[:90%]' holds all classes.

Options decide what the names leave open: `folder:PATH?splits=none` (see
`folder_layout.Options`).
"""

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np
from etils import epath

from sslhsic.data import (
  arguments,
  folder_files,
  folder_layout,
  images,
  metadata,
  splits,
)
from sslhsic.data.errors import printable
from sslhsic.data.origins import Origin

# A folder changed so shortly before it was listed may change again unnoticed.
_CLOCK_NS = 2_000_000_000
_MOST_KEPT = 4
_ARRAYS = frozenset({'.npy'})


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Images in files.

  Attributes:
    paths: of the files.
    labels: [n] int32, numbers of the classes; -1 where there are none.
    class_names: by number; empty where there are none.
    description: what the folder holds, in one or two lines.
    root: the folder.
    table: name of the CSV file with metadata; empty without one.
    metadata: [n] or [n, 1], a field of the metadata; None without one.
  """

  paths: Sequence[str]
  labels: np.ndarray
  class_names: tuple[str, ...]
  description: str
  root: str = ''
  table: str = ''
  metadata: np.ndarray | None = None

  @property
  def num_classes(self) -> int:
    """0 where there are none."""
    return len(self.class_names)

  @property
  def origin(self) -> Origin:
    """The paths."""
    return Origin.of_paths(self.paths)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    encoded = epath.Path(self.paths[index]).read_bytes()
    example = {'image': encoded, 'label': self.labels[index]}
    if self.metadata is not None:
      example['metadata'] = self.metadata[index]
    return example

  def with_metadata(self, field: str) -> 'FolderSource':
    """The source with a field of its metadata, see `source.with_metadata`."""
    if not self.table:
      raise ValueError(
        f'folder:{self.root} has no metadata; use folder:{self.root}?metadata=FILE.csv'
      )
    files = [os.path.relpath(path, self.root) for path in self.paths]
    table = metadata.read(self.root, self.table)
    return dataclasses.replace(self, metadata=metadata.column(table, field, files))

  def path(self, index: int) -> str:
    """The path of an example, as it is on the disk."""
    return self.paths[index]

  def name(self, index: int) -> str:
    """The path of an example, for messages."""
    return printable(self.path(index))


def create(argument: str, split: str) -> FolderSource:
  """The images below a folder.

  Args:
    argument: the path of the folder; and options, after a '?'.
    split: parts in TFDS's syntax; 'val' and 'validation' are the same.

  Raises:
    ValueError: there is no such folder or split, it holds no image, or it is not clear
      which subfolders are splits or classes.
  """
  path, given = arguments.folder_and_options(argument, 'folder:PATH, PATH a folder')
  options = folder_layout.parse(given)
  layout = _layout(path, options)
  sizes = {name: len(there.paths) for name, there in layout.splits.items()}
  known = splits.canonical(split, layout.names)
  parts = splits.ranges(known, sizes, f'folder:{printable(path)}')
  paths = [x for name, part in parts for x in layout.splits[name].paths[part]]
  labels = np.concatenate([layout.splits[name].labels[part] for name, part in parts])
  # Parts without labels make an unlabelled source, whatever the other splits hold.
  names = layout.class_names if labels.max() >= 0 else ()
  return FolderSource(paths, labels, names, layout.description, path, options.metadata)


# The folders that were read last, for other splits of them.
_kept: dict[tuple, tuple[folder_files.Stamps, folder_layout.Layout]] = {}


def _layout(path: str, options: folder_layout.Options) -> folder_layout.Layout:
  """What a folder holds; it is listed again only if it has changed."""
  key = (path, options)
  if key in _kept and folder_files.are_current(_kept[key][0]):
    return _kept[key][1]
  _kept.pop(key, None)
  start = time.time_ns()
  stamps, suffixes = {}, _ARRAYS if options.is_arrays else images.SUFFIXES
  if options.folders:
    trees = {}
    for name, folder in options.folders:
      trees[name], of_split = folder_files.read(os.path.join(path, folder), suffixes)
      stamps |= of_split
  else:
    trees, stamps = folder_files.read(path, suffixes)
  layout = folder_layout.understand(trees, path, options)
  if max(stamps.values(), default=0) < start - _CLOCK_NS:
    # Dicts keep their order: the first key is the oldest entry.
    while len(_kept) >= _MOST_KEPT:
      del _kept[next(iter(_kept))]
    _kept[key] = stamps, layout
  return layout
