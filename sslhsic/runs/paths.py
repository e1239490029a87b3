"""Paths that a user gives, on disk or in a bucket, tried before they are needed."""

import os
import pathlib
import re
import secrets
import tempfile

from etils import epath

from sslhsic import storage

_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def parse(path: str | os.PathLike, name: str) -> storage.Path:
  """A path on disk, with ~ replaced by the home directory, or one in a bucket.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: the address is of another kind than gs:// and s3://, their client is
      not installed, or there is no such home.
  """
  text = os.fspath(path)
  if storage.is_bucket(text):
    storage.client(text)
    return epath.Path(text)
  if _SCHEME.match(text):
    raise ValueError(
      f'{name} is {text!r}, an address of a kind that is not known; use a local path, '
      'gs://… or s3://…'
    )
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise ValueError(f'{name} is {text!r}: {error}') from error


def output_file(path: str | os.PathLike, name: str) -> storage.Path:
  """A file to be written at the end, whose directory is made and tried now.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: as `parse`, or the path is a directory.
    OSError: its directory cannot be made or written.
  """
  file = parse(path, name)
  if storage.is_directory(file):
    raise ValueError(f'{name} is {file}, a directory; give a file in it')
  _try_to_write(file.parent, name)
  return file


def output_directory(path: str | os.PathLike, name: str) -> storage.Path:
  """A directory to be made at the end, whose parent is made and tried now.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: as `parse`, or the path is something that is not an empty directory.
    OSError: its parent cannot be made or written.
  """
  directory = parse(path, name)
  if storage.is_file(directory) or storage.names(directory):
    raise ValueError(f'{directory} is there already, and not empty; use another {name}')
  _try_to_write(directory.parent, name)
  return directory


def _try_to_write(directory: storage.Path, name: str) -> None:
  try:
    if storage.is_bucket(directory):
      trial = directory / f'.{secrets.token_hex(8)}.tmp'
      storage.put(trial, b'')
      storage.remove_file(trial)
      return
    directory.mkdir(parents=True, exist_ok=True)
    # An actual file, since permissions alone do not tell of read-only mounts.
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise OSError(
      f'{name}: nothing can be written into {directory} ({error.strerror or error})'
    ) from error
