"""Keeping count of images that cannot be decoded."""

from collections.abc import Iterable

from absl import logging

from sslhsic.data.errors import InputError
from sslhsic.data.sources import Source

_MOST_NAMES = 20  # In a message; all are in the log.


class BadImages:
  """The images of a source that were skipped; too many of them end the job.

  Attributes:
    rows: of the source, each once.
  """

  def __init__(self, source: Source, max_fraction: float):
    self.rows: set[int] = set()
    self._source = source
    self._max_fraction = max_fraction

  def add(self, rows: Iterable[int]) -> None:
    """Counts rows, and logs those that are new.

    Raises:
      InputError: more than `max_fraction` of the source is bad.
    """
    for row in sorted(set(map(int, rows)) - self.rows):
      self.rows.add(row)
      logging.warning(
        'skipped %s: it is corrupt, truncated or missing (%d so far)',
        self._source.name(row),
        len(self.rows),
      )
    if len(self.rows) > self._max_fraction * len(self._source):
      raise InputError(self._message())

  def _message(self) -> str:
    names = [self._source.name(row) for row in sorted(self.rows)]
    rest = f' and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
    return (
      f'{len(names)} of {len(self._source)} images are corrupt, truncated or missing, '
      f'more than a fraction of {self._max_fraction:g}: '
      f'{", ".join(names[:_MOST_NAMES])}{rest}; repair or remove them, or raise '
      'config.data.max_bad_fraction, which a resumed run may do'
    )
