"""Lists the images below a folder, on disk or on any file system that etils knows.

Every folder is listed once, however many links lead to it: a link to a folder that is
listed already, such as one to a folder above, is counted and not followed.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator

from etils import epath

from sslhsic.data import images
from sslhsic.data.errors import one_line, printable

# What operating systems and file servers leave among images.
_NOT_OURS = {
  '__MACOSX',
  '@eaDir',
  '#recycle',
  '$RECYCLE.BIN',
  'System Volume Information',
  'lost+found',
}
_FILE, _FOLDER, _LINK, _OTHER = range(4)


@dataclasses.dataclass(eq=False)
class Folder:
  """A folder, and all below it.

  Attributes:
    path: of the folder.
    images: names of the images directly in it.
    others: number of other files directly in it, by suffix or kind.
    folders: its subfolders by name.
    num_images: in it and below.
  """

  path: str
  images: list[str] = dataclasses.field(default_factory=list)
  others: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  folders: dict[str, 'Folder'] = dataclasses.field(default_factory=dict)
  num_images: int = 0

  @property
  def with_images(self) -> dict[str, 'Folder']:
    """The subfolders that hold images, in the order of their names."""
    return {name: x for name, x in sorted(self.folders.items()) if x.num_images}

  def below(self) -> Iterator['Folder']:
    """The folder and all below it; parents before their subfolders."""
    waiting = [self]
    while waiting:
      folder = waiting.pop()
      yield folder
      waiting += folder.folders.values()


# Time of the last change of every folder that was listed, in ns.
Stamps = dict[str, int]


def read(
  path: str, suffixes: frozenset[str] = images.SUFFIXES
) -> tuple[Folder, Stamps]:
  """Lists a folder and all below it.

  Names that start with a dot are hidden files, and left out.

  Args:
    path: of the folder.
    suffixes: of images, in lower case.

  Raises:
    ValueError: a folder cannot be read.
  """
  root = Folder(path)
  stamps, seen = {}, set()
  # Folders themselves come first, so that a link to one of them is the one left out.
  folders, links = collections.deque([root]), collections.deque()
  while folders or links:
    if not folders:
      parent, name = links.popleft()
      folder = Folder(f'{parent.path}/{name}')
    else:
      parent, folder = None, folders.popleft()
    try:
      identity = _identity(folder.path, stamps)
      if identity in seen:
        if parent:
          parent.others['link to a folder listed already'] += 1
        continue
      seen.add(identity)
      linked = _fill(folder, suffixes)
    except OSError as error:
      raise ValueError(
        f'cannot list the folder {folder.path!r}: {one_line(error)}; make it readable, '
        'or move it elsewhere'
      ) from error
    if parent:
      parent.folders[name] = folder
    links += [(folder, name) for name in linked]
    folders += folder.folders.values()
  _count(root)
  return root, stamps


def are_current(stamps: Stamps) -> bool:
  """Whether no folder has changed since it was listed."""
  try:
    return all(os.stat(path).st_mtime_ns == stamp for path, stamp in stamps.items())
  except OSError:
    return False


def _identity(path: str, stamps: Stamps) -> tuple | str:
  """What a folder is known by, whatever its path; notes when it was changed."""
  # A bucket has neither links nor times of change: its path identifies a folder.
  if '://' in path:
    return path
  status = os.stat(path)
  stamps[path] = status.st_mtime_ns
  return status.st_dev, status.st_ino


def _fill(folder: Folder, suffixes: frozenset[str]) -> list[str]:
  """Lists a folder; its subfolders are empty as yet. Returns the links to folders."""
  links, subfolders = [], []
  for name, kind in _entries(folder.path, suffixes):
    if name[0] == '.' or name in _NOT_OURS:
      continue
    suffix = images.suffix(name)
    if kind == _FILE and suffix in suffixes:
      folder.images.append(name)
    elif kind == _FILE:
      folder.others[suffix or 'without suffix'] += 1
    elif kind == _FOLDER:
      subfolders.append(name)
    elif kind == _LINK:
      links.append(name)
    else:
      folder.others['broken link or special file'] += 1
  folder.folders = {
    name: Folder(f'{folder.path}/{name}') for name in sorted(subfolders)
  }
  return sorted(links)


def _entries(path: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
  """Names and kinds of what is in a folder."""
  if '://' in path:
    yield from _remote_entries(path, suffixes)
    return
  with os.scandir(path) as entries:
    for entry in entries:
      yield entry.name, _kind(entry)


def _kind(entry: os.DirEntry) -> int:
  try:
    # Follows links: a link to an image is an image.
    if entry.is_file():
      return _FILE
    if entry.is_dir(follow_symlinks=False):
      return _FOLDER
    return _LINK if entry.is_dir() else _OTHER
  except OSError:  # Such as a link to itself.
    return _OTHER


def _remote_entries(path: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
  for entry in epath.Path(path).iterdir():
    # On a bucket a call is slow; names of images tell that they are no folders.
    is_file = images.suffix(entry.name) in suffixes or not entry.is_dir()
    yield entry.name, _FILE if is_file else _FOLDER


def _count(root: Folder) -> None:
  """Sets the number of images of every folder."""
  # Reversed, subfolders come before their parents, which add up their counts.
  for folder in reversed(list(root.below())):
    below = sum(subfolder.num_images for subfolder in folder.folders.values())
    folder.num_images = len(folder.images) + below


def describe_others(root: Folder) -> str:
  """The files that are left out, by suffix: '5 .heic, 2 .txt'; '' if there are none."""
  total = collections.Counter()
  for folder in root.below():
    total += folder.others
  return ', '.join(
    f'{count:,} {printable(kind)}' for kind, count in total.most_common()
  )
