"""Errors in the data, found while a job runs."""


class InputError(ValueError):
  """Data cannot be used; the message says which, why, and what to do, in one line."""


class DecodeError(ValueError):
  """An example cannot be used; the message is the cause, in one line.

  Its image is corrupt, truncated, too large or no image, its file cannot be read, or
  its targets do not fit it.
  """


def one_line(error: Exception) -> str:
  """The message of an error of a library, in at most 300 characters of one line."""
  text = ' '.join(str(error).split()) or type(error).__name__
  return text if len(text) <= 300 else f'{text[:297]}…'


def printable(text: str) -> str:
  """A path or name for a message: escapes stand for bytes that are no text."""
  return text if text.isprintable() else repr(text)[1:-1]
