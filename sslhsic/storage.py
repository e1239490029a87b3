"""Files on disk and in buckets, gs:// and s3://, by the same calls.

A bucket holds objects, which appear whole or not at all, but can be neither renamed nor
appended to. Directories there are only parts of names. One that must be whole has a
file, its `last`, that is written last and removed first: readers look for that one.
What grows is written to a local directory (`spool`) and copied.
"""

import contextlib
import functools
import hashlib
import importlib
import logging as python_logging
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import fsspec
from absl import logging
from etils import epath

Path: TypeAlias = pathlib.Path | epath.Path

# Clients by scheme: fsspec's name, the package, and the extra that installs it.
_CLIENTS = {'gs': ('gcs', 'gcsfs', 'gcs'), 's3': ('s3', 's3fs', 's3')}

# Errors that stay what they are; others of a client are an `OSError`.
_KINDS = FileNotFoundError, FileExistsError, PermissionError

_UPLOAD_EVERY_S = 60

# Called before anything is written below a directory in a bucket, by its name.
_guards: dict[str, Callable[[], None]] = {}


def is_bucket(path: str | os.PathLike) -> bool:
  """Whether a path lies in a bucket."""
  return os.fspath(path).startswith(tuple(f'{scheme}://' for scheme in _CLIENTS))


def client(path: str | os.PathLike) -> fsspec.AbstractFileSystem:
  """The client for the bucket of a path.

  Raises:
    ValueError: it is not installed.
  """
  return _client(os.fspath(path).partition('://')[0])


@functools.cache
def _client(scheme: str) -> fsspec.AbstractFileSystem:
  name, package, extra = _CLIENTS[scheme]
  try:
    importlib.import_module(package)
  except ImportError as error:
    raise ValueError(
      f'{scheme}:// needs {package}, which is not installed ({error}): '
      f"pip install '.[{extra}]'"
    ) from error
  # It logs a traceback of what it raises anyway.
  python_logging.getLogger(package).setLevel('CRITICAL')
  # Listings are not kept: other processes write too. For etils, and so JAX, as well.
  for alias in (scheme, name):
    fsspec.config.conf.setdefault(alias, {})['use_listings_cache'] = False
  return fsspec.filesystem(name)


@contextlib.contextmanager
def _reaching(path: str | os.PathLike) -> Iterator[fsspec.AbstractFileSystem]:
  """The client, for one exchange; what fails in it is an `OSError` with the path."""
  found = client(path)
  try:
    yield found
  except Exception as error:  # Clients have errors of many types.
    reason = ' '.join(str(error).split())
    for kind in _KINDS:
      if isinstance(error, kind):
        raise kind(f'{path}: {reason}') from error
    raise OSError(f'{path}: {type(error).__name__} {reason}'.strip()) from error


# What is there


def exists(path: str | os.PathLike) -> bool:
  """Whether there is a file or directory.

  Raises:
    OSError: the bucket does not tell. (`Path.exists` would call that no.)
  """
  return bool(_kind(path))


def is_file(path: str | os.PathLike) -> bool:
  """Whether there is a file; see `exists`."""
  return _kind(path) == 'file'


def is_directory(path: str | os.PathLike) -> bool:
  """Whether there is a directory; in a bucket, one that is not empty; see `exists`."""
  return _kind(path) == 'directory'


def _kind(path: str | os.PathLike) -> str | None:
  if not is_bucket(path):
    path = pathlib.Path(path)
    if path.is_dir():
      return 'directory'
    return 'file' if path.exists() else None
  try:
    with _reaching(path) as bucket:
      return bucket.info(os.fspath(path))['type']
  except FileNotFoundError:
    return None


def names(directory: Path) -> list[str]:
  """Names of what is in a directory; none if it is not there."""
  if not is_bucket(directory):
    return os.listdir(directory) if directory.is_dir() else []
  try:
    with _reaching(directory) as bucket:
      found = bucket.ls(os.fspath(directory), detail=False)
  except FileNotFoundError:
    return []
  own = os.fspath(directory).partition('://')[2]
  # A console may have put an empty object in the place of the directory itself.
  return [
    name.rstrip('/').rpartition('/')[2] for name in found if name.rstrip('/') != own
  ]


def find(directory: Path, pattern: str) -> list[Path]:
  """Files below a directory whose path ends like a pattern, as of `Path.rglob`."""
  if not is_bucket(directory):
    return list(directory.rglob(pattern))
  below = (pathlib.PurePosixPath(name) for name in _below(directory))
  return [directory / name for name in below if name.match(pattern)]


def _below(directory: Path) -> list[str]:
  """Paths, from a directory in a bucket, of all files below it."""
  start = os.fspath(directory).partition('://')[2] + '/'
  with _reaching(directory) as bucket:
    found = bucket.find(os.fspath(directory))
  return sorted(
    name.removeprefix(start)
    for name in found
    if name.startswith(start) and not name.endswith('/')
  )


def resolved(path: Path) -> Path:
  """The absolute path, without links; in a bucket, the path."""
  return path if is_bucket(path) else path.resolve()


# Reading


def read(path: Path) -> bytes:
  """The content of a file, of one moment."""
  if not is_bucket(path):
    return path.read_bytes()
  with _reaching(path) as bucket:
    return bucket.cat_file(os.fspath(path))


@contextlib.contextmanager
def local(path: Path) -> Iterator[pathlib.Path]:
  """A file on disk: itself, or a copy for as long as the context is open."""
  if not is_bucket(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as directory:
    copy = pathlib.Path(directory) / path.name
    with _reaching(path) as bucket:
      bucket.get_file(os.fspath(path), str(copy))
    yield copy


def download(source: Path, target: pathlib.Path) -> None:
  """Copies a directory in a bucket to one on disk, which is made.

  Raises:
    FileNotFoundError: it is empty, or a file was removed meanwhile.
  """
  files = _below(source)
  if not files:
    raise FileNotFoundError(f'there is no {source}')
  with _reaching(source) as bucket:
    bucket.get(
      [os.fspath(source / name) for name in files], [str(target / x) for x in files]
    )


# Writing


def guard(directory: Path, check: Callable[[], None]) -> None:
  """Calls `check` before anything is written below a directory in a bucket.

  Args:
    directory: the directory.
    check: raises an `OSError` if this process may not write there.
  """
  _guards[os.fspath(directory)] = check


def unguard(directory: Path) -> None:
  """Undoes `guard`."""
  del _guards[os.fspath(directory)]


def _check(path: Path) -> None:
  for directory, check in list(_guards.items()):
    if os.fspath(path).startswith(f'{directory}/'):
      check()


def make_directory(directory: Path) -> None:
  """Makes a directory and those above it; in a bucket, there is nothing to make."""
  if not is_bucket(directory):
    directory.mkdir(parents=True, exist_ok=True)


def put(path: Path, content: bytes, *, is_new: bool = False) -> None:
  """Writes an object, whole or not at all, whatever guards its directory.

  Args:
    path: in a bucket.
    content: of the object.
    is_new: whether it may not be there yet; of several that try at once, one succeeds.

  Raises:
    FileExistsError: it is there, and may not be.
  """
  with _reaching(path) as bucket:
    mode = 'create' if is_new else 'overwrite'
    bucket.pipe_file(os.fspath(path), content, mode=mode)


def put_file(file: pathlib.Path, path: Path) -> None:
  """Copies a file on disk to an object, whole or not at all."""
  _check(path)
  with _reaching(path) as bucket:
    bucket.put_file(str(file), os.fspath(path))


def upload(source: pathlib.Path, target: Path, last: str) -> None:
  """Copies a directory on disk into a bucket, in the place of what is there.

  Args:
    source: the directory.
    target: the one in the bucket.
    last: name of the file that says that all are there.
  """
  remove(target, last)
  files = [
    path.relative_to(source).as_posix() for path in source.rglob('*') if path.is_file()
  ]
  files.remove(last)
  _check(target)
  if files:
    with _reaching(target) as bucket:
      bucket.put(
        [str(source / name) for name in files], [os.fspath(target / x) for x in files]
      )
  put_file(source / last, target / last)


def remove(directory: Path, last: str) -> None:
  """Removes a directory from a bucket.

  Args:
    directory: need not be there.
    last: name of the file that goes first, see `upload`.
  """
  files = sorted(_below(directory), key=lambda name: name != last)
  _check(directory)
  with _reaching(directory) as bucket:
    for name in files:
      # Not `rm`, for which some names are patterns.
      bucket.rm_file(os.fspath(directory / name))


def remove_file(path: Path) -> None:
  """Removes an object, which need not be there."""
  with contextlib.suppress(FileNotFoundError), _reaching(path) as bucket:
    bucket.rm_file(os.fspath(path))


def move(source: Path, target: Path, last: str) -> None:
  """Renames a directory; in a bucket, copies it and removes it.

  Args:
    source: the directory.
    target: its new path, of which the directory above is made.
    last: see `upload`.
  """
  make_directory(target.parent)
  if not is_bucket(source):
    source.rename(target)
    return
  _check(target)
  with _reaching(source) as bucket:
    for name in sorted(_below(source), key=lambda name: name == last):
      bucket.cp_file(os.fspath(source / name), os.fspath(target / name))
  remove(source, last)


# What grows


def spool(directory: Path) -> pathlib.Path:
  """A directory on disk to write in: the directory itself, or a temporary one for it.

  Those that killed processes have left for the same directory are removed.

  Raises:
    OSError: it cannot be made.
  """
  if not is_bucket(directory):
    return directory
  digest = hashlib.sha256(os.fspath(directory).encode()).hexdigest()[:16]
  prefix = f'sslhsic-{digest}-'
  for left in pathlib.Path(tempfile.gettempdir()).glob(f'{prefix}*'):
    shutil.rmtree(left, ignore_errors=True)
  return pathlib.Path(tempfile.mkdtemp(prefix=prefix))


class Mirror:
  """A directory to write in, which is copied to a bucket from time to time.

  Args:
    directory: on disk, it is the one to write in; nothing is copied.

  Attributes:
    path: on disk, what to write in.
  """

  def __init__(self, directory: Path):
    self.path = spool(directory)
    self._target = directory if is_bucket(directory) else None
    self._sizes = {}  # Of the copies, by file.
    self._lock = threading.Lock()
    self._closed = threading.Event()
    if self._target:
      threading.Thread(target=self._upload_often, daemon=True).start()

  def _upload_often(self) -> None:
    while not self._closed.wait(_UPLOAD_EVERY_S):
      self._try_to_upload()

  def _try_to_upload(self) -> None:
    try:
      self.upload()
    except OSError as error:
      logging.warning('%s: could not write logs: %s', self._target, error)

  def upload(self) -> None:
    """Copies the files that have grown since the last time.

    Raises:
      OSError: not all are in the bucket; the next call tries again.
    """
    if not self._target:
      return
    with self._lock:
      for file in sorted(self.path.rglob('*')):
        if not file.is_file() or file.stat().st_size == self._sizes.get(file):
          continue
        content = file.read_bytes()  # Of one moment: it may grow.
        target = self._target / file.relative_to(self.path).as_posix()
        _check(target)
        put(target, content)
        self._sizes[file] = len(content)

  def close(self) -> None:
    """Copies what is left, and removes what was only local; a failure is logged."""
    if not self._target or self._closed.is_set():
      return
    self._closed.set()
    self._try_to_upload()
    shutil.rmtree(self.path, ignore_errors=True)
