"""Splits and classes of a folder of images, from the names of its subfolders.

Where two readings are possible, the options of the source decide; without them an error
says what was seen.
"""

import collections
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sslhsic.data import folder_files, splits
from sslhsic.data.errors import printable
from sslhsic.data.folder_files import Folder

_MOST_NAMES = 10  # In a message.
# No names of splits.
_RESERVED = {'split', 'splits', 'class', 'classes', 'images', 'metadata'}
_READABLE = 'JPEG, PNG, WebP, TIFF, BMP, GIF, PPM or AVIF'
# Images that are not read: a folder of these alone is a class that lost its images.
_UNREADABLE = {'.heic', '.heif', '.jxl', '.jp2', '.psd', '.raw', '.dng', '.nef', '.cr2'}


class Options(NamedTuple):
  """How to read a folder, as the name of a source says: `folder:PATH?OPTIONS`.

  Attributes:
    is_one_split: `splits=none`, all subfolders are classes, whatever they are called.
    folders: `NAME=DIR`, the folders of the splits, below PATH; the only ones there are.
    names: what the splits of these are called, see `splits.called`.
    classes: 'none', images have no labels and lie at any depth; 'folders', even a
      single folder in a split is a class; ''.
    is_arrays: `images=npy`, images are NPY files of uint8 [H, W, C], and nothing else.
    metadata: `metadata=FILE`, a CSV file with metadata of the images, see `metadata`.
  """

  is_one_split: bool = False
  folders: tuple[tuple[str, str], ...] = ()
  names: tuple[tuple[str, str], ...] = ()
  classes: str = ''
  is_arrays: bool = False
  metadata: str = ''


class Split(NamedTuple):
  """The images of a split, in an order that their names alone decide.

  Attributes:
    paths: of the images.
    labels: [n] int32, numbers of their classes; -1 without labels.
  """

  paths: list[str]
  labels: np.ndarray


class Layout(NamedTuple):
  """All that a folder holds.

  Attributes:
    splits: by name.
    names: name of a folder or option -> name of its split; see `splits.canonical`.
    class_names: in the order of their numbers, the same in all splits.
    description: of the above, and of what was left out, in one or two lines.
  """

  splits: dict[str, Split]
  names: dict[str, str]
  class_names: tuple[str, ...]
  description: str


def parse(given: Sequence[str]) -> Options:
  """The options after the '?' of a source's name.

  Raises:
    ValueError: one of them is unknown.
  """
  options, folders = Options(), {}
  for option in given:
    key, _, value = option.partition('=')
    if option == 'splits=none':
      options = options._replace(is_one_split=True)
    elif option == 'images=npy':
      options = options._replace(is_arrays=True)
    elif key == 'classes' and value in ('none', 'folders'):
      options = options._replace(classes=value)
    elif key == 'metadata' and value:
      options = options._replace(metadata=value)
    elif key not in _RESERVED and value and re.fullmatch(r'[A-Za-z]\w*', key):
      if key in folders:
        raise ValueError(
          f'the options {"&".join(given)!r} name the split {key!r} twice; give it one '
          'folder'
        )
      folders[key] = value
    else:
      raise ValueError(
        f"unknown option {option!r} of a folder; use 'splits=none', 'classes=none', "
        "'classes=folders', 'images=npy', 'metadata=FILE.csv' or the folders of the "
        "splits, such as 'train=DIR&test=DIR'"
      )
  if folders and options.is_one_split:
    raise ValueError(
      f"the options {'&'.join(given)!r} say 'splits=none' and name splits"
    )
  names = splits.called(folders)
  return options._replace(
    folders=tuple((names[key], folder) for key, folder in folders.items()),
    names=tuple(names.items()),
  )


def understand(
  trees: Mapping[str, Folder] | Folder, path: str, options: Options
) -> Layout:
  """The splits and classes of what was listed.

  Args:
    trees: of the folder; or of each split, where the options name them.
    path: what the folder is called in messages.
    options: of the source.

  Raises:
    ValueError: there is no image, or it is not clear what is a split or a class.
  """
  is_named = not isinstance(trees, Folder)
  roots = list(trees.values()) if is_named else [trees]
  if not any(root.num_images for root in roots):
    others = _others(roots)
    raise ValueError(
      f'folder {path!r} holds no image{f", only {others}" if others else ""}; images '
      f'are {"NPY" if options.is_arrays else _READABLE} files'
    )
  folders = dict(trees) if is_named else _split_folders(trees, path, options)
  folders = {name: folder for name, folder in folders.items() if folder.num_images}
  labelled = _class_folders(folders, options)
  # Over all splits, so that a class has one number everywhere.
  names = tuple(sorted(set().union(*labelled.values())))
  found = {
    name: _split(folders[name], labelled.get(name, {}), names) for name in folders
  }
  description = _describe(path, found, names, _others(roots), labelled)
  called = dict(options.names) or {
    folder.path.rpartition('/')[2]: name for name, folder in folders.items()
  }
  return Layout(found, called, names, description)


# Splits


def _split_folders(root: Folder, path: str, options: Options) -> dict[str, Folder]:
  """The folder of each split; without any, the whole is 'train'.

  Raises:
    ValueError: it is not clear which folders are splits.
  """
  if options.is_one_split:
    return {'train': root}
  # Splits may lie below wrappers such as PATH/images; options name them from PATH on.
  inner = _inner(root)
  there, prefix = inner.with_images, inner.path[len(root.path) + 1 :]
  named = collections.defaultdict(list)
  for name in there:
    named[splits.canonical_name(name)].append(name)
  others = named.pop(None, [])
  if not named:
    _check_no_split_is_hidden(there, path, prefix)
  if not named or _are_classes(named, others, there):
    return {'train': root}
  where = f'{path!r}' if inner is root else f'{inner.path!r} (in {path!r})'
  for split, names in named.items():
    if len(names) > 1:
      raise ValueError(
        f'{where} has {len(names)} folders for the split {split!r}: {_list(names)}; '
        f'name the one to read: {_how_to_name(path, prefix, {split: names[0]})}'
      )
  chosen = {split: names[0] for split, names in named.items()}
  if inner.images:
    raise ValueError(
      f'{where} holds {len(inner.images):,} images next to folders that are called '
      f'like splits ({_list(chosen.values())}); move the images, or name the splits: '
      f'{_how_to_name(path, prefix, chosen)}'
    )
  if others and not _are_splits(chosen, others, there):
    raise ValueError(
      f'{where} has folders called like splits ({_list(chosen.values())}) among others '
      f"({_list(others)}); if all are classes use 'folder:{path}?splits=none', else "
      f'name the splits: {_how_to_name(path, prefix, chosen)}'
    )
  return {split: there[name] for split, name in chosen.items()} | {
    name: there[name] for name in others
  }


def _inner(folder: Folder) -> Folder:
  """The folder itself, or the one below it that everything is in."""
  while not folder.images and len(folder.with_images) == 1:
    ((name, inner),) = folder.with_images.items()
    if splits.canonical_name(name):
      break
    folder = inner
  return folder


def _are_classes(
  named: Mapping[str, list[str]], others: list[str], there: Mapping[str, Folder]
) -> bool:
  """Whether folders are all of one kind, one of them the class 'train' by its name."""
  is_flat = not any(folder.with_images for folder in there.values())
  return is_flat and list(named.values()) == [['train']] and len(others) >= 3


def _are_splits(
  chosen: Mapping[str, str], others: list[str], there: Mapping[str, Folder]
) -> bool:
  """Whether folders that are called like splits are splits, among others."""
  classes_of = lambda name: set(there[name].with_images)
  first, *rest = chosen.values()
  # Splits repeat the folders of the classes; different classes share none.
  if any(classes_of(first) & classes_of(name) for name in [*rest, *others]):
    return True
  return len(chosen) > 1 and len(others) <= len(chosen)


def _check_no_split_is_hidden(
  there: Mapping[str, Folder], path: str, prefix: str
) -> None:
  """Raises an error if parts of names look like splits, or folders hold splits."""
  looks = {}
  for name in there:
    for part in re.split('[^A-Za-z0-9]+', name):
      looks.setdefault(splits.canonical_name(part), name)
  looks.pop(None, None)
  if len(looks) > 1:
    raise ValueError(
      f'{path!r} has folders that may be splits ({_list(looks.values())}); name them: '
      f"{_how_to_name(path, prefix, looks)}, or use 'folder:{path}?splits=none' if "
      'they are classes'
    )
  for folder in there.values():
    inside = {splits.canonical_name(name): name for name in folder.with_images}
    inside.pop(None, None)
    if len(inside) > 1:
      raise ValueError(
        f'{folder.path!r} holds folders called like splits ({_list(inside.values())}) '
        f"next to others; read it alone, as 'folder:{folder.path}', or use "
        f"'folder:{path}?splits=none' if all folders of {path!r} are classes"
      )


def _how_to_name(path: str, prefix: str, chosen: Mapping[str, str]) -> str:
  options = '&'.join(
    f'{split}={os.path.join(prefix, name)}' for split, name in chosen.items()
  )
  return repr(f'folder:{path}?{options}')


# Classes


def _class_folders(
  folders: Mapping[str, Folder], options: Options
) -> dict[str, dict[str, Folder]]:
  """The folders of the classes, by name, of every split that has labels.

  Raises:
    ValueError: it is not clear which folders are classes.
  """
  if options.classes == 'none':
    return {}
  chains = {
    name: [folder] if options.classes == 'folders' else list(_chain(folder))
    for name, folder in folders.items()
  }
  labelled = {
    name: chain[-1].with_images
    for name, chain in chains.items()
    if chain[-1].with_images
  }
  for name in labelled:
    if chains[name][-1].images:
      raise ValueError(
        f'{chains[name][-1].path!r} holds images and folders of images '
        f'({_list(labelled[name])}) side by side; move the images into folders of '
        "classes, or append '?classes=none' to the source to read all without labels"
      )
  known = set().union(*labelled.values())
  _check_spelling(known, labelled)
  for name, chain in chains.items():
    # A split may hold one class of several, in a folder that looks like a wrapper.
    for above in chain[:-1] if name not in labelled else []:
      if known & above.with_images.keys():
        labelled[name] = above.with_images
        break
  for name, chain in chains.items():
    for folder in chain if name in labelled else chain[:-1]:
      _check_no_class_is_empty(folder, known)
  return labelled


def _check_spelling(known: set[str], labelled: Mapping[str, Iterable[str]]) -> None:
  """Raises an error if splits spell the name of a class differently."""
  spelled = collections.defaultdict(list)
  for name in sorted(known):
    spelled[unicodedata.normalize('NFKC', name).casefold().strip()].append(name)
  for names in spelled.values():
    # Two spellings within one split are two classes; across splits they are a mistake.
    if len(names) > 1 and all(len({*names} & {*x}) < 2 for x in labelled.values()):
      raise ValueError(
        f'splits spell a class differently: {", ".join(map(ascii, names))}; give its '
        'folders the same name'
      )


def _chain(folder: Folder) -> Iterator[Folder]:
  """A folder, the only one in it, and so on, to one that has images or several."""
  yield folder
  while not folder.images and len(folder.with_images) == 1:
    (folder,) = folder.with_images.values()
    yield folder


def _check_no_class_is_empty(folder: Folder, known: set[str]) -> None:
  """Raises an error if a folder next to classes has lost its images, or has unreadable.

  One with other files, such as labels or documents, is no class. What has images in
  another split is one, of which this split has no image.
  """
  for name, below in sorted(folder.folders.items()):
    if below.num_images or name in known:
      continue
    files = sum((x.others for x in below.below()), collections.Counter())
    if not files or files.keys() & _UNREADABLE:
      there = folder_files.describe_others(below)
      raise ValueError(
        f'class {name!r} has no image in {folder.path!r}, '
        f'{f"only {there}" if there else "its folder is empty"}; put images into it '
        f'({_READABLE}), or remove it'
      )


# Images


def _split(
  folder: Folder, classes: Mapping[str, Folder], names: tuple[str, ...]
) -> Split:
  """The images of a split, in the order of a hash of their paths."""
  paths, labels = [], []
  number = {name: number for number, name in enumerate(names)}
  parts = classes.items() if classes else [('', folder)]
  for name, part in parts:
    before = len(paths)
    for below in part.below():
      paths += [f'{below.path}/{image}' for image in below.images]
    labels.append(np.full(len(paths) - before, number.get(name, -1), np.int32))
  # Only the paths below the folder count: the order survives a move of the data.
  order = _order(paths, len(folder.path))
  return Split([paths[row] for row in order], np.concatenate(labels)[order])


def _order(paths: list[str], start: int) -> np.ndarray:
  """Rows in the order of a hash of the paths from the character `start` on."""
  digests = b''.join(
    hashlib.blake2b(path[start:].encode('utf-8', 'surrogateescape')).digest()[:16]
    for path in paths
  )
  # A digest is two big-endian numbers; the last key of `lexsort` comes first.
  high, low = np.frombuffer(digests, '>u8').reshape(-1, 2).T
  return np.lexsort((low, high))


# Messages


def _describe(
  path: str,
  found: Mapping[str, Split],
  names: tuple[str, ...],
  others: str,
  labelled: Mapping[str, dict[str, Folder]],
) -> str:
  unlabelled = lambda name: ' without labels' if names and name not in labelled else ''
  counts = ', '.join(
    f'{name} {len(split.paths):,} images{unlabelled(name)}'
    for name, split in found.items()
  )
  classes = f'{len(names)} classes ({_list(names)})' if names else 'no labels'
  left_out = f'\n  left out: {others}' if others else ''
  return f'folder:{printable(path)}: {counts}; {classes}{left_out}'


def _others(roots: list[Folder]) -> str:
  return '; '.join(filter(None, map(folder_files.describe_others, roots)))


def _list(names: Iterable[str]) -> str:
  """The first of some names, for a message."""
  names = list(names)
  more = f', … {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
  return ', '.join(map(printable, names[:_MOST_NAMES])) + more
