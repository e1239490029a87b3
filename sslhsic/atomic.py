"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


def write(path: pathlib.Path, text: str) -> None:
  """Writes a text."""
  with opened(path) as file:
    file.write(text.encode())


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """A file to be written, which is in its place when the context has ended well."""
  # Next to the target: a rename is atomic only within one file system.
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    with temporary.open('wb') as file:
      yield file
      # On disk before the rename, else a crash could leave the name of an empty file.
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)  # What is left would fill a full disk.
    raise
