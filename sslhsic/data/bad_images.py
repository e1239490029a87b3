"""Keeping count of images that cannot be used."""

from collections.abc import Iterable

from absl import logging

from sslhsic.data.errors import InputError
from sslhsic.data.source import Source

_MOST_NAMES = 10  # In a message; all are in the log.


class BadImages:
  """The images of a source that were skipped; too many of them end the job.

  Args:
    source: the images.
    max_fraction: share of the images that may be bad.
    num_images: of which it is the share, if the source is a part of a whole.

  Attributes:
    rows: of the source, each once.
  """

  def __init__(
    self, source: Source, max_fraction: float, num_images: int | None = None
  ):
    self._num_images = num_images or len(source)
    self.rows: set[int] = set()
    self._causes: dict[int, str] = {}
    self._source = source
    self._max_fraction = max_fraction

  def add(self, rows: Iterable[int], causes: Iterable[str]) -> None:
    """Counts rows, and logs those that are new, each with its cause.

    Raises:
      InputError: more than `max_fraction` of the source is bad.
    """
    cause_of = dict(zip(map(int, rows), map(str, causes), strict=True))
    for row in sorted(cause_of.keys() - self.rows):
      self.rows.add(row)
      self._causes[row] = cause_of[row]
      logging.warning('skipped %s (%d so far)', self._describe(row), len(self.rows))
    # A row counts once, however many epochs of an endless stream meet it again.
    if len(self.rows) > self._max_fraction * self._num_images:
      raise InputError(self._message())

  def _describe(self, row: int) -> str:
    """Name and cause; there is none for a row that a checkpoint knows of."""
    name, cause = self._source.name(row), self._causes.get(row)
    return f'{name}: {cause}' if cause else name

  def _message(self) -> str:
    bad = [self._describe(row) for row in sorted(self.rows)[:_MOST_NAMES]]
    more = len(self.rows) - len(bad)
    rest = f'; and {more} more' if more else ''
    return (
      f'{len(self.rows)} of {self._num_images} images cannot be used, more than a '
      f'fraction of {self._max_fraction:g}: {"; ".join(bad)}{rest}. Repair or remove '
      'them, or raise config.data.max_bad_fraction (--max_bad_fraction of embed), '
      'which a resumed run may do'
    )
