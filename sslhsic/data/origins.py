"""Where the examples of a source come from, to find out which two sources share."""

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
    return cls('file', np.fromiter(map(hash, paths), np.int64, len(paths)))


def num_shared(first: Sequence[Origin], second: Sequence[Origin]) -> int:
  """How many examples of the second are among the first."""
  return sum(
    int(np.isin(there.rows, here.rows).sum())
    for there in second
    for here in first
    if here.where == there.where
  )
