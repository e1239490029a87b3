"""Knowing a data set again, wherever it lies."""

import hashlib
import itertools
from typing import NamedTuple

from sslhsic.data.sources import Source

# Names that are hashed at a time: their text stays small.
_CHUNK = 4096


class Fingerprint(NamedTuple):
  """What tells data sets apart.

  Attributes:
    count: of examples.
    names: digest of the names of all, in their order, without the directory that all
      of them are in.
  """

  count: int
  names: str


def fingerprint(source: Source) -> Fingerprint:
  """The number and the names of all examples; no image is read.

  A million names take about a second.
  """
  count = len(source)
  shared = _shared_directory(source.name(0), source.name(count - 1)) if count else ''
  digest = hashlib.blake2b(digest_size=8)
  for start in range(0, count, _CHUNK):
    rows = range(start, min(start + _CHUNK, count))
    text = '\0'.join(source.name(row).replace(shared, '', 1) for row in rows)
    digest.update(f'{text}\0'.encode(errors='surrogateescape'))
  return Fingerprint(count, digest.hexdigest())


def _shared_directory(first: str, last: str) -> str:
  """The directory of the paths in two names, with its separator; or nothing.

  A name is a path, or ends in one, as 'image 3 of PATH'.
  """
  folders = [_path_in(name).split('/')[:-1] for name in (first, last)]
  pairs = zip(*folders, strict=False)
  common = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
  return ''.join(f'{folder}/' for folder, _ in common)


def _path_in(name: str) -> str:
  slash = name.find('/')
  return name[name.rfind(' ', 0, slash) + 1 :] if slash >= 0 else ''


def check(found: Fingerprint, here: Fingerprint, field: str) -> None:
  """Checks that a data set is the one that a run began with.

  Args:
    found: of the data set that the run began with.
    here: of the present one.
    field: that names it, such as config.data.source.

  Raises:
    ValueError: they differ.
  """
  if found != here:
    what = f'{found.count} images then, {here.count} now'
    if found.count == here.count:
      what = f'{here.count} images as then, but other names or another order'
    raise ValueError(
      f'the data set of {field} has changed since this run was begun: {what}; restore '
      'it, or begin another run in another --workdir'
    )
