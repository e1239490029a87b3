"""A folder of images on disk, or on any file system that etils knows (gs://…).

    PATH/train/CLASS/*.jpg  PATH/val/CLASS/*.jpg     splits, each with a folder a class
    PATH/train/*.jpg        PATH/val/*.jpg           splits of unlabelled images
    PATH/CLASS/*.jpg                                 one split, 'train'
    PATH/*.jpg                                       one split, unlabelled

Files are JPEG, PNG or WebP. Below the folder of a class they may lie at any depth.
Classes are numbered in the order of their names. Examples come in an order that is
random but the same everywhere, given by a hash of their paths, so that a part such as
'train[:90%]' holds all classes.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from sslhsic.data import splits

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')
# A folder is divided into splits if it has one of these subfolders.
_SPLITS = {'train', 'validation', 'test'}


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Images in files.

  Attributes:
    paths: of the files.
    labels: [n] int32, numbers of the classes; -1 where there are none.
    num_classes: 0 where there are none.
  """

  paths: Sequence[str]
  labels: np.ndarray
  num_classes: int

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    encoded = epath.Path(self.paths[index]).read_bytes()
    return {'image': encoded, 'label': self.labels[index]}

  def name(self, index: int) -> str:
    """The path of an example."""
    return self.paths[index]


def create(path: str, split: str) -> FolderSource:
  """The images below a folder.

  Args:
    path: of the folder.
    split: parts in TFDS's syntax; 'val' and 'validation' are the same.

  Raises:
    ValueError: there is no such folder or split, it holds no image, or a class is
      missing from it.
  """
  root = epath.Path(path).expanduser()
  if not path or not root.is_dir():
    raise ValueError(f'there is no folder {path!r}; use folder:PATH, PATH a folder')
  parts = splits.canonical(split)
  folders = _split_folders(root)
  read = splits.to_read(parts, folders)
  files = {name: _files(folders[name]) for name in folders if name in read}
  if not any(files.values()):
    raise ValueError(f'folder {path!r} holds no image ({", ".join(SUFFIXES)})')
  classes = _classes(folders, files)
  sizes = {name: len(there) for name, there in files.items()}
  chosen = [
    file
    for name, part in splits.ranges(parts, sizes, f'folder:{path}')
    for file in files[name][part]
  ]
  labels = np.array([classes.get(file.label, -1) for file in chosen], np.int32)
  is_labelled = bool(len(labels)) and labels.max() >= 0
  paths = [file.path for file in chosen]
  return FolderSource(paths, labels, len(classes) if is_labelled else 0)


class _File(NamedTuple):
  """An image, and the folder of its class, or ''."""

  path: str
  label: str


def _split_folders(root: epath.Path) -> dict[str, epath.Path]:
  """The folder of each split; without any, the whole is 'train'."""
  folders = {splits.canonical(folder.name): folder for folder in _subfolders(root)}
  return folders if _SPLITS & folders.keys() else {'train': root}


def _subfolders(folder: epath.Path) -> list[epath.Path]:
  return [entry for entry in _entries(folder) if not _is_image(entry)]


def _entries(folder: epath.Path) -> Iterator[epath.Path]:
  """Images and subfolders."""
  for entry in folder.iterdir():
    if entry.name.startswith('.'):
      continue
    # On a bucket a call is slow; names of images tell that they are no folders.
    if _is_image(entry) or entry.is_dir():
      yield entry


def _is_image(path: epath.Path) -> bool:
  return path.suffix.lower() in SUFFIXES


def _files(folder: epath.Path) -> list[_File]:
  """The images of a split, in an order that its names alone decide."""
  files = []
  for entry in _entries(folder):
    if _is_image(entry):
      files.append(_File(os.fspath(entry), ''))
    else:
      files += [_File(path, entry.name) for path in _walk(entry)]
  start = len(os.fspath(folder))
  digest = lambda file: hashlib.blake2b(file.path[start:].encode()).digest()
  return sorted(files, key=digest)


def _walk(folder: epath.Path) -> Iterator[str]:
  for entry in _entries(folder):
    if _is_image(entry):
      yield os.fspath(entry)
    else:
      yield from _walk(entry)


def _classes(
  folders: dict[str, epath.Path], files: dict[str, list[_File]]
) -> dict[str, int]:
  """Numbers of the classes, the same in all splits.

  Raises:
    ValueError: a split lacks a class, or holds images outside the folders of classes.
  """
  subfolders = {name: _subfolders(folder) for name, folder in folders.items()}
  names = sorted({folder.name for there in subfolders.values() for folder in there})
  for name, there in files.items():
    if not subfolders[name]:
      continue  # Without labels.
    missing = sorted(set(names) - {file.label for file in there})
    if missing:
      raise ValueError(
        f'class {missing[0]!r} has no image in {folders[name]}'
        f'{f" ({len(missing)} such classes)" if len(missing) > 1 else ""}; every '
        'split with folders of classes needs some of each class'
      )
    if any(not file.label for file in there):
      raise ValueError(
        f'{folders[name]} holds folders and images side by side; move the images into '
        'folders of classes, or all of them into one folder'
      )
  return {name: number for number, name in enumerate(names)}
