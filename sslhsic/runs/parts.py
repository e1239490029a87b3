"""Parts of a result that may fail without taking the others along."""

import contextlib
from collections.abc import Iterator, Mapping

from absl import logging


@contextlib.contextmanager
def part(name: str, failed: dict[str, str]) -> Iterator[None]:
  """A context whose failure is noted, and then over.

  Of several processes, all must fail in it or none.

  Args:
    name: of the part.
    failed: gets the reason by the name; part of the results under 'failed'.
  """
  try:
    yield
  except Exception as error:
    logging.debug('traceback', exc_info=True)
    failed[name] = describe(error)


def describe(error: BaseException) -> str:
  """An error in one line."""
  text = ' '.join(str(error).split())
  speaks_for_itself = isinstance(error, ValueError | OSError) and text
  return text if speaks_for_itself else f'{type(error).__name__} {text}'.strip()


def message(failed: Mapping[str, str]) -> str:
  """What failed and why, in one line."""
  reasons = '; '.join(f'{name}: {reason}' for name, reason in failed.items())
  return f'failed, and named in results.json: {reasons}; the rest is written'
