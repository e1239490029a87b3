"""Paths that a user gives: local ones, and tried before they are needed."""

import os
import pathlib
import re
import tempfile

_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def local(path: str | os.PathLike, name: str) -> pathlib.Path:
  """A local path, with ~ replaced by the home directory.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: the path is an address such as gs://…, or there is no such home.
  """
  text = os.fspath(path)
  if _SCHEME.match(text):
    raise ValueError(
      f'{name} is {text!r}, an address; runs and weights need a local path so far: '
      'mount or copy it'
    )
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise ValueError(f'{name} is {text!r}: {error}') from error


def output_file(path: str | os.PathLike, name: str) -> pathlib.Path:
  """A file to be written at the end, whose directory is made and tried now.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: the path is an address or a directory.
    OSError: its directory cannot be made or written.
  """
  file = local(path, name)
  if file.is_dir():
    raise ValueError(f'{name} is {file}, a directory; give a file in it')
  _try_to_write(file.parent, name)
  return file


def output_directory(path: str | os.PathLike, name: str) -> pathlib.Path:
  """A directory to be made at the end, whose parent is made and tried now.

  Args:
    path: as the user gave it.
    name: flag or field, for messages.

  Raises:
    ValueError: the path is an address, or something that is not an empty directory.
    OSError: its parent cannot be made or written.
  """
  directory = local(path, name)
  if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
    raise ValueError(f'{directory} is there already, and not empty; use another {name}')
  _try_to_write(directory.parent, name)
  return directory


def _try_to_write(directory: pathlib.Path, name: str) -> None:
  try:
    directory.mkdir(parents=True, exist_ok=True)
    # An actual file, since permissions alone do not tell of read-only mounts.
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise OSError(
      f'{name}: nothing can be written into {directory} ({error.strerror})'
    ) from error
