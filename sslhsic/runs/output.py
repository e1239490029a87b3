"""Standard output and error that cannot show everything, or that go away."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def replace_what_cannot_be_shown() -> None:
  """Prints a question mark for what the encoding of the output lacks, as × in ASCII."""
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='replace')


def drop_if_broken() -> None:
  """Keeps the end of the program from failing on output that nobody reads any more."""
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except OSError:  # A closed pipe, or a terminal that has hung up.
      # Python flushes what is left in the buffer once more when it exits.
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def unread() -> Iterator[None]:
  """A context in which it does not matter whether anybody reads standard output."""
  with contextlib.redirect_stdout(_Tolerant(sys.stdout)):
    yield


class _Tolerant:
  """A text stream that loses what cannot be written."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    with contextlib.suppress(OSError):
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    with contextlib.suppress(OSError):
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
