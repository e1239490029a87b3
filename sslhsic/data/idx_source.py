"""Data sets in IDX format: MNIST, Fashion-MNIST, KMNIST, EMNIST, QMNIST, USPS.

    PATH/train-images-idx3-ubyte.gz   PATH/train-labels-idx1-ubyte.gz    'train'
    PATH/t10k-images-idx3-ubyte.gz    PATH/t10k-labels-idx1-ubyte.gz     'test'

Files may be gzipped or not, whatever their names say; `test` stands for `t10k` and
`.idx` for `-idx`, too. Names may have a prefix, as in
`emnist-letters-train-images-idx3-ubyte`; if a folder holds several data sets,
PATH/PREFIX names one.

Classes are numbered from 0; labels that start at 1 (EMNIST letters) are shifted. The
images of EMNIST are stored transposed; files whose prefix starts with `emnist` are
transposed back, so that letters stand upright. TFDS gives EMNIST as it is stored, and
the examples of every data set in another order.

An IDX file is two zero bytes, a byte for the type of its values (0x08: uint8, 0x0C:
int32), a byte for the number of its dimensions, the dimensions, uint32 each, and the
values, all big-endian (http://yann.lecun.com/exdb/mnist).
"""

import dataclasses
import functools
import gzip
import math
import os
import re
import zlib
from typing import NamedTuple

import numpy as np
from etils import epath

from sslhsic.data import splits
from sslhsic.data.origins import Origin

_NAME = re.compile(
  r'((?P<prefix>.+)-)?(?P<split>train|t10k|test)-(?P<kind>images|labels)'
  r'[-.]idx\d-(ubyte|int)(\.gz)?'
)
_EXAMPLE = 'train-images-idx3-ubyte.gz'
_GZIP_MAGIC = b'\x1f\x8b'


class _Format(NamedTuple):
  """A type of values and a number of dimensions, in the third and fourth byte."""

  type_code: int
  rank: int


_DTYPES = {0x08: np.dtype('>u1'), 0x0C: np.dtype('>i4')}
# QMNIST has eight numbers per image in the place of a label; the first is the class.
_FORMATS = {
  'images': (_Format(0x08, 3),),
  'labels': (_Format(0x08, 1), _Format(0x0C, 2)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class IdxSource:
  """Images of one channel, [H, W, 1] uint8.

  Each process reads a file once. A pickled source holds the names of the files, not the
  images.

  Attributes:
    files: of images.
    rows: [n, 2] of the examples: the number of the file and the row in it.
    labels: [n] int32.
    num_classes: labels are below it.
  """

  files: tuple[str, ...]
  rows: np.ndarray
  labels: np.ndarray
  num_classes: int

  @property
  def origin(self) -> Origin:
    """The files, and the rows in them."""
    return Origin.of_paths([f'{self.files[file]} {row}' for file, row in self.rows])

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    file, row = self.rows[index]
    return {'image': _images(self.files[file])[row], 'label': self.labels[index]}

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray] | None:
    """The arrays of these examples; None if they are of several files."""
    files, rows_of_file = self.rows[rows].T
    if (files != files[0]).any():
      return None
    return {
      'image': _images(self.files[files[0]])[rows_of_file],
      'label': self.labels[rows],
    }

  def name(self, index: int) -> str:
    """The row and the file of an example."""
    file, row = self.rows[index]
    return f'image {row} of {self.files[file]}'


def create(path: str, split: str) -> IdxSource:
  """The images of IDX files in a folder.

  Args:
    path: of the folder; or the folder and the prefix of the files in it, such as
      'gzip/emnist-balanced'.
    split: parts, in TFDS's syntax, of 'train' and 'test'.

  Raises:
    ValueError: a file is missing, truncated, damaged or not of the expected kind,
      images and labels do not match, or there is no such split.
  """
  files = _find(path)
  labels = {name: _raw_labels(there['labels']) for name, there in files.items()}
  # Needs all labels, also for 'test' alone: the training labels define the classes.
  first, num_classes = _classes(labels, files)
  sizes = {name: len(there) for name, there in labels.items()}
  parts = splits.ranges(split, sizes, f'idx:{path}')
  for name, _ in parts:
    _check_count(files[name], len(_images(files[name]['images'])), sizes[name])
  names = sorted({name for name, _ in parts})
  # Pairs (file, rows), which broadcasting below expands to [n, 2].
  numbers = [(names.index(name), np.arange(sizes[name])[part]) for name, part in parts]
  return IdxSource(
    tuple(files[name]['images'] for name in names),
    np.concatenate([np.stack(np.broadcast_arrays(*pair), axis=1) for pair in numbers]),
    np.concatenate([labels[name][part] for name, part in parts]) - first,
    num_classes,
  )


# Finding files


def _find(path: str) -> dict[str, dict[str, str]]:
  """Files of 'images' and 'labels' by split, 'train' or 'test'."""
  folder, prefix = epath.Path(path).expanduser(), None
  # The last part of such a path may be the prefix of files, as 'gzip/emnist-balanced'.
  if path and not folder.is_dir():
    folder, prefix = folder.parent, folder.name
  if not path or not folder.is_dir():
    raise ValueError(
      f'there is no folder {path!r}; use idx:PATH, PATH a folder with files such as '
      f'{_EXAMPLE}'
    )
  matches = [_NAME.fullmatch(file.name) for file in folder.iterdir()]
  # Reversed: 'train' comes before 't10k' and 'test'.
  matches = sorted(filter(None, matches), key=lambda match: match[0], reverse=True)
  prefixes = sorted({match['prefix'] or '' for match in matches})
  if prefix is None:
    prefix = _only_prefix(path, prefixes)
  elif prefix not in prefixes:
    there = ', '.join(filter(None, prefixes))
    raise ValueError(
      f'there is no folder {path!r}, and no file {path}-{_EXAMPLE} or alike'
      f'{f"; there are files with the prefixes {there}" if there else ""}; use '
      'idx:PATH, PATH a folder or, of several data sets in it, FOLDER/PREFIX'
    )
  files = {}
  for match in matches:
    file = folder / match[0]
    if (match['prefix'] or '') == prefix and file.is_file():
      split = 'train' if match['split'] == 'train' else 'test'
      _add(files.setdefault(split, {}), match['kind'], os.fspath(file))
  _check_complete(files, path)
  return files


def _only_prefix(path: str, prefixes: list[str]) -> str:
  """The prefix of the files of a folder; none, if there are files without."""
  if len(prefixes) > 1 and '' not in prefixes:
    raise ValueError(
      f'folder {path!r} holds several data sets; name one: '
      f'{", ".join(f"idx:{path}/{prefix}" for prefix in prefixes)}'
    )
  return prefixes[0] if prefixes else ''


def _add(files: dict[str, str], kind: str, file: str) -> None:
  if kind in files:
    raise ValueError(f'{files[kind]} and {file} hold the same {kind}; remove one')
  files[kind] = file


def _check_complete(files: dict[str, dict[str, str]], path: str) -> None:
  if not files:
    raise ValueError(
      f'folder {path!r} holds no IDX file; expected names are {_EXAMPLE}, '
      'train-labels-idx1-ubyte.gz and the same with t10k, with or without .gz'
    )
  for there in files.values():
    missing = {'images', 'labels'} - there.keys()
    if missing:
      (kind,), (other,) = missing, there.values()
      raise ValueError(
        f'{other} has no file of {kind} next to it; add it, or remove that one'
      )


# Reading files


@functools.cache
def _images(file: str) -> np.ndarray:
  """[n, H, W, 1] uint8, upright, not writeable."""
  images = _read(file, 'images')
  if os.path.basename(file).startswith('emnist'):
    images = np.ascontiguousarray(images.transpose(0, 2, 1))
    # Read-only, as `frombuffer` gives it: the cache hands one array to all callers.
    images.flags.writeable = False
  return images[..., None]


def _raw_labels(file: str) -> np.ndarray:
  """[n] int32, as numbered in the file."""
  labels = _read(file, 'labels')
  return (labels[:, 0] if labels.ndim == 2 else labels).astype(np.int32)


def _read(file: str, kind: str) -> np.ndarray:
  """The values of a file of 'images' or 'labels'."""
  content = _content(file)
  type_code, rank = _format(file, kind, content)
  start = 4 + 4 * rank
  if len(content) < start:
    raise ValueError(
      f'{file} is truncated: it holds {len(content)} bytes, and the header of {kind} '
      f'takes {start}; download it again'
    )
  shape = tuple(int(size) for size in np.frombuffer(content, '>u4', rank, offset=4))
  if not math.prod(shape):
    raise ValueError(f'{file} holds no {kind}: its header says {_times(shape)} values')
  dtype = _DTYPES[type_code]
  expected, found = math.prod(shape) * dtype.itemsize, len(content) - start
  if expected != found:
    raise ValueError(
      f'{file} {"is truncated" if found < expected else "has trailing bytes"}: its '
      f'header says {_times(shape)} values, {expected:,} bytes, but {found:,} follow; '
      'download it again'
    )
  return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _content(file: str) -> bytes:
  """The bytes of a file, decompressed if they are gzipped."""
  content = epath.Path(file).read_bytes()
  if not content.startswith(_GZIP_MAGIC):
    return content
  try:
    return gzip.decompress(content)
  except EOFError as error:
    raise ValueError(
      f'{file} is truncated: the gzip stream of its {len(content):,} bytes has no end; '
      'download it again'
    ) from error
  except (zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(
      f'{file} is damaged: its gzip stream cannot be decompressed ({error}); download '
      'it again'
    ) from error


def _format(file: str, kind: str, content: bytes) -> _Format:
  """Type and rank, which are right for the kind of file."""
  header = content[:4]
  usual = bytes([0, 0, *_FORMATS[kind][0]]).hex(' ')
  if len(header) < 4:
    raise ValueError(
      f'{file} is truncated: it holds {len(header)} bytes; download it again'
    )
  if header[:2] != b'\0\0':
    raise ValueError(
      f'{file} is no IDX file: it starts with the bytes {header.hex(" ")}, {kind} in '
      f'IDX format with {usual}; download it again'
    )
  found = _Format(*header[2:])
  if found not in _FORMATS[kind]:
    raise ValueError(
      f'{file} does not hold {kind}: it starts with the bytes {header.hex(" ")} (type '
      f'0x{found.type_code:02X}, {found.rank} dimensions), {kind} with {usual}; see '
      'that the files have their original names'
    )
  return found


def _times(shape: tuple[int, ...]) -> str:
  return '×'.join(map(str, shape))


# Checking labels


def _check_count(files: dict[str, str], num_images: int, num_labels: int) -> None:
  if num_images != num_labels:
    raise ValueError(
      f'{files["images"]} holds {num_images:,} images, but {files["labels"]} '
      f'{num_labels:,} labels; use two files of the same data set'
    )


def _classes(
  labels: dict[str, np.ndarray], files: dict[str, dict[str, str]]
) -> tuple[int, int]:
  """The smallest label, 0 or 1, and the number of classes.

  Training labels say which classes there are, or test labels where there are no others.
  """
  known = 'train' if 'train' in labels else 'test'
  found = np.unique(labels[known])
  first, last = int(found[0]), int(found[-1])
  # Labels whose successor is missing.
  gaps = found[:-1][np.diff(found) > 1]
  if first not in (0, 1) or len(gaps):
    what = (
      f'no example has label {gaps[0] + 1}' if first in (0, 1) else 'none is 0 or 1'
    )
    raise ValueError(
      f'labels in {files[known]["labels"]} go from {first} to {last}, but {what}; '
      'labels must be 0 to n - 1 or 1 to n, each of some example'
    )
  for name, there in labels.items():
    wrong = there[(there < first) | (there > last)]
    if len(wrong):
      raise ValueError(
        f'{files[name]["labels"]} has the label {wrong[0]}, but the training labels go '
        f'from {first} to {last}; use two files of the same data set'
      )
  return first, last - first + 1
