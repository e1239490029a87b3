"""Knowing a data set again, wherever it lies."""

import hashlib
from typing import NamedTuple

from sslhsic.data.source import Source

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

  A million names take about a second, twice the time of asking for them.
  """
  shared = _shared_directory(source)
  digest = hashlib.blake2b(digest_size=8)
  for start in range(0, len(source), _CHUNK):
    rows = range(start, min(start + _CHUNK, len(source)))
    text = '\0'.join(source.name(row).replace(shared, '', 1) for row in rows)
    digest.update(f'{text}\0'.encode(errors='surrogateescape'))
  return Fingerprint(len(source), digest.hexdigest())


def _shared_directory(source: Source) -> str:
  """The directory of the paths in all names, with its separator; or nothing.

  A name is a path, or ends in one, as 'image 3 of PATH'.
  """
  if not len(source):
    return ''
  first = source.name(0)
  # From the last space before the first '/', if any, to the last '/'.
  shared = first[
    first.rfind(' ', 0, max(first.find('/'), 0)) + 1 : first.rfind('/') + 1
  ]
  for row in range(len(source)):
    # Ends with the empty string at the latest, which every name contains.
    while shared not in source.name(row):
      shared = shared[: shared.rstrip('/').rfind('/') + 1]  # The one above.
  return shared


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
