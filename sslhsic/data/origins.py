"""Where the examples of a source come from, to find out which two sources share."""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Origin(NamedTuple):
  """What tells the examples of a source from all others.

  Attributes:
    where: the data set, or 'file'.
    rows: [n] int64, of the examples; the same number in the same data set is the same
      example.
  """

  where: str
  rows: np.ndarray

  @classmethod
  def of_paths(cls, paths: Sequence[str]) -> 'Origin':
    """The origin of images in files."""
    # Folders alone: to resolve every file takes minutes on a network file system.
    resolved = functools.cache(place)
    ends = (path.rfind('/') + 1 for path in paths)
    hashes = (
      hash((resolved(path[:end]), path[end:]))
      for path, end in zip(paths, ends, strict=True)
    )
    return cls('file', np.fromiter(hashes, np.int64, len(paths)))


def place(directory: str) -> str:
  """A directory by the same path, however it is written; a bucket's as it is."""
  return directory if '://' in directory else os.path.realpath(directory)


def num_shared(first: Sequence[Origin], second: Sequence[Origin]) -> int:
  """How many examples of the second are among the first."""
  return sum(
    int(np.isin(there.rows, here.rows).sum())
    for there in second
    for here in first
    if here.where == there.where
  )
