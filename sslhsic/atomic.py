"""Files and directories that are there whole or not at all, on disk or in a bucket."""

import contextlib
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

from sslhsic import storage


def write(path: storage.Path, text: str) -> None:
  """Writes a text."""
  with opened(path) as file:
    file.write(text.encode())


@contextlib.contextmanager
def opened(path: storage.Path) -> Iterator[IO[bytes]]:
  """A file to be written, which is in its place when the context has ended well."""
  if storage.is_bucket(path):
    with tempfile.TemporaryDirectory() as directory:
      copy = pathlib.Path(directory) / path.name
      with copy.open('wb') as file:
        yield file
      storage.put_file(copy, path)
    return
  temporary = _beside(path)
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


@contextlib.contextmanager
def directory(path: storage.Path, last: str) -> Iterator[pathlib.Path]:
  """A directory to put files in, which is in its place when the context has ended well.

  Args:
    path: what to make; it may be there if it is empty.
    last: name of the file that must be there, see `storage.upload`.
  """
  if storage.is_bucket(path):
    with tempfile.TemporaryDirectory() as temporary:
      yield pathlib.Path(temporary)
      storage.upload(pathlib.Path(temporary), path, last)
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = _beside(path)
  temporary.mkdir()
  try:
    yield temporary
    for file in temporary.iterdir():  # On disk before they have their name.
      with file.open('r+b') as opened_file:  # Windows does not flush what is only read.
        os.fsync(opened_file.fileno())
    temporary.replace(path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def _beside(path: pathlib.Path) -> pathlib.Path:
  """A name that no other process uses, where what is written first has its place."""
  # Next to the target: a rename is atomic only within one file system. Numbers of
  # processes are not their own: in containers, every one may have the same.
  return path.with_name(f'.{path.name}.{secrets.token_hex(4)}.tmp')
