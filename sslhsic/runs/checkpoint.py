"""Checkpoints by Orbax: written whole or not at all, verified when read.

Those in a bucket are written to a disk and copied, and copied back to be read: Orbax
itself does not know s3://.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sslhsic import storage

# What Orbax keeps a checkpoint's parts under.
_ARRAYS, _HOST, _MANIFEST = 'arrays', 'host', 'manifest'

# The file without which a directory in a bucket is no checkpoint; Orbax writes it.
_LAST = '_CHECKPOINT_METADATA'

# What makes a path a pattern for `glob`, with which Orbax looks for its own files.
_PATTERN = '*?['

_MOST_OF_MESSAGE = 300  # Characters; TensorStore's own can be pages.


class Checkpoint(NamedTuple):
  """What was saved after `step` updates.

  Attributes:
    step: number of updates made.
    arrays: a tree of host arrays.
    host: JSON values, such as the state of the input.
  """

  step: int
  arrays: chex.ArrayTree
  host: dict[str, Any]


class SaveError(Exception):
  """A checkpoint could not be written; says which, and why."""


class DamagedError(ValueError):
  """A checkpoint is not what was saved."""


class Checkpointer:
  """Saves and restores checkpoints under one directory.

  Only one process may have it at a time; of several that train together, the first. It
  starts by removing what earlier processes left half written.

  The first checkpoint that it saves is read back and compared with what was saved.

  Args:
    directory: of the checkpoints, a subdirectory for each, named by its step.
    keep: how many, at least one; older ones are removed.
    before_commit: called in the background before a checkpoint appears in a bucket.

  Raises:
    ValueError: none is to be kept.
    OSError: the directory cannot be made.
  """

  def __init__(
    self,
    directory: storage.Path,
    keep: int = 1,
    before_commit: Callable[[], None] = lambda: None,
  ):
    if keep < 1:
      raise ValueError(f'{keep} checkpoints are to be kept; keep one or more')
    storage.make_directory(directory)
    self._directory = directory
    self._in_bucket = storage.is_bucket(directory)
    self._keep = keep
    self._before_commit = before_commit
    # Where Orbax writes; on disk the directory itself.
    self._local = storage.spool(directory)
    if self._in_bucket:
      _remove_half_written(directory)
    self._is_verified = False
    self._manager = self._open()
    self._worker = futures.ThreadPoolExecutor(1, 'checkpoint')
    self._pending: tuple[int, futures.Future] | None = None

  def _open(self) -> ocp.CheckpointManager:
    # A thread of our own does what takes time: hashing too, not only writing.
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1 if self._in_bucket else self._keep,
      create=False,
      cleanup_tmp_directories=True,
      enable_async_checkpointing=False,
      # The first process alone has a manager: Orbax must not wait for the others.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix='checkpoint'
      ),
    )
    return ocp.CheckpointManager(_plain(self._local), options=options)

  def save(self, checkpoint: Checkpoint) -> None:
    """Saves in the background, unless this step is there already.

    Waits only for a save that is still under way, and until the arrays are copied.

    Raises:
      SaveError: the save before has failed.
    """
    self.wait()
    if checkpoint.step in steps(self._directory):
      return
    # A copy, since the caller may change its arrays while they are written.
    arrays = jax.tree.map(np.array, checkpoint.arrays)
    future = self._worker.submit(self._write, checkpoint._replace(arrays=arrays))
    self._pending = checkpoint.step, future

  def check(self) -> None:
    """Looks whether a save that has ended in the background has failed.

    Raises:
      SaveError: it has; it is told once.
    """
    if self._pending and self._pending[1].done():
      self.wait()

  def wait(self) -> None:
    """Waits until everything is on disk.

    Raises:
      SaveError: the last save has failed.
    """
    if not self._pending:
      return
    (step, future), self._pending = self._pending, None
    try:
      future.result()
    except Exception as error:  # Orbax and TensorStore have errors of many types.
      logging.debug('traceback', exc_info=True)
      # A manager that failed believes in the step; a new one looks at the disk.
      self._manager.close()
      self._manager = self._open()
      raise SaveError(
        f'could not save the checkpoint of step {step}: {_one_line(error)}'
      ) from error

  def last_good(self) -> str:
    """Which checkpoint is the last one, in words; waits until it is on disk."""
    with contextlib.suppress(SaveError):
      self.wait()
    try:
      step = max(steps(self._directory), default=None)
    except OSError as error:  # The error of the run is the one to be told.
      return f'the last good checkpoint is not known: {_one_line(error)}'
    if step is None:
      return 'there is no good checkpoint'
    return f'the last good checkpoint is that of step {step}'

  def _write(self, checkpoint: Checkpoint) -> None:
    manifest = _manifest(checkpoint)
    self._manager.save(
      checkpoint.step,
      args=ocp.args.Composite(
        **{
          _ARRAYS: ocp.args.StandardSave(checkpoint.arrays),
          _HOST: ocp.args.JsonSave(checkpoint.host),
          _MANIFEST: ocp.args.JsonSave(manifest),
        }
      ),
    )
    if self._in_bucket:
      self._commit(checkpoint.step)
    if not self._is_verified:
      self._verify(checkpoint.step, manifest)
      self._is_verified = True

  def _commit(self, step: int) -> None:
    """Copies a checkpoint from the disk to the bucket, and removes older ones there."""
    try:
      self._before_commit()
      storage.upload(self._local / str(step), self._directory / str(step), _LAST)
    except BaseException:
      shutil.rmtree(self._local / str(step))  # Else Orbax would not write it again.
      raise
    for old in sorted(steps(self._directory))[: -self._keep]:
      storage.remove(self._directory / str(old), _LAST)

  def _read(self, step: int) -> Checkpoint:
    """Reads and verifies; see `_read`."""
    if self._in_bucket:
      shutil.rmtree(self._local / str(step), ignore_errors=True)
      storage.download(self._directory / str(step), self._local / str(step))
      self._manager.reload()
    return _read(self._manager, step)

  def _verify(self, step: int, manifest: dict[str, str]) -> None:
    """Reads a checkpoint back; one that is not what was saved is put aside.

    Raises:
      DamagedError: this one.
    """
    try:
      if _manifest(self._read(step)) != manifest:
        raise DamagedError('it is not what was saved')
    except DamagedError as error:
      self._put_aside([step])
      raise DamagedError(f'it cannot be read back: {error}') from error

  def restore_latest(self, like: chex.ArrayTree) -> Checkpoint | None:
    """The latest good checkpoint, or None if there never was one.

    A damaged one is named in the log and moved to `damaged/` beside the directory, and
    the one before is taken.

    Args:
      like: a tree with the structure, shapes and types of the saved arrays.

    Raises:
      ValueError: the saved arrays are not like that, or all checkpoints are damaged.
    """
    damaged = {}
    for step in reversed(steps(self._directory)):
      try:
        found = self._read(step)
      except DamagedError as error:
        damaged[step] = str(error)
        logging.warning('the checkpoint of step %d is damaged: %s', step, error)
        continue
      restored = found._replace(arrays=_fit(found, like))
      # Only now: as long as no checkpoint is good, all stay where they can be repaired.
      self._put_aside(damaged)
      return restored
    if damaged:
      raise ValueError(
        f'no checkpoint in {self._directory} is good ('
        + '; '.join(f'step {step}: {error}' for step, error in damaged.items())
        + '); repair one, or start anew in another --workdir'
      )
    return None

  def _put_aside(self, damaged: Collection[int]) -> None:
    for step in damaged:
      target = self._directory.parent / 'damaged' / str(step)
      number = 0
      while storage.exists(target):
        number += 1
        target = target.with_name(f'{step}.{number}')
      storage.move(self._directory / str(step), target, _LAST)
      if self._in_bucket:
        shutil.rmtree(self._local / str(step))
      logging.warning('it is kept as %s', target)
    if damaged:
      self._manager.reload()

  def close(self) -> None:
    """Waits until everything is on disk; a failure is only logged."""
    try:
      self.wait()
    except SaveError as error:
      logging.warning('%s', error)
    self._worker.shutdown()
    self._manager.close()
    if self._in_bucket:
      shutil.rmtree(self._local, ignore_errors=True)


def _plain(directory: pathlib.Path) -> pathlib.Path:
  """The directory itself, or a link to it by a path that is no pattern."""
  directory = directory.absolute()
  if not set(_PATTERN) & set(str(directory)):
    return directory
  digest = hashlib.sha256(os.fsencode(directory)).hexdigest()
  link = _links() / digest[:16]
  if not link.is_symlink():
    link.symlink_to(directory, target_is_directory=True)
  return link


@functools.cache
def _links() -> pathlib.Path:
  """A directory for links, which goes with the process."""
  made = pathlib.Path(tempfile.mkdtemp(prefix='sslhsic-'))
  # The links alone are removed, not what they lead to.
  atexit.register(shutil.rmtree, made, ignore_errors=True)
  return made


def read(
  directory: storage.Path,
  step: int | None = None,
  like: chex.ArrayTree | None = None,
) -> Checkpoint:
  """A checkpoint of another run.

  Args:
    directory: of the checkpoints.
    step: which of them; by default the latest.
    like: a tree with the structure, shapes and types of the saved arrays; by default
      they come as nested dicts and lists.

  Raises:
    DamagedError: it is not what was saved.
    ValueError: there is no such checkpoint, or it is not like that.
  """
  step = resolve(directory, step)
  # Every process reads for itself, without a barrier between them.
  options = ocp.CheckpointManagerOptions(
    create=False,
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    ),
  )
  try:
    with (
      _on_disk(directory, step) as local,
      ocp.CheckpointManager(_plain(local), options=options) as manager,
    ):
      found = _read(manager, step)
  except DamagedError as error:
    raise DamagedError(
      f'the checkpoint {directory / str(step)} is damaged: {error}; use another one'
    ) from error
  return found if like is None else found._replace(arrays=_fit(found, like))


@contextlib.contextmanager
def _on_disk(directory: storage.Path, step: int) -> Iterator[pathlib.Path]:
  """A directory on disk that has a checkpoint, for as long as the context is open.

  Raises:
    DamagedError: it was removed from the bucket meanwhile.
  """
  if not storage.is_bucket(directory):
    yield directory
    return
  with tempfile.TemporaryDirectory() as made:
    local = pathlib.Path(made)
    try:
      storage.download(directory / str(step), local / str(step))
    except FileNotFoundError as error:
      raise DamagedError('it was removed while it was read') from error
    yield local


def resolve(directory: storage.Path, step: int | None) -> int:
  """The step of the checkpoint that is meant; see `read`.

  Raises:
    ValueError: there is no such checkpoint.
  """
  if not storage.is_directory(directory):
    raise ValueError(f'no checkpoints in {directory}; train there first')
  found = steps(directory)
  if not found or step not in (None, *found):
    there = ', '.join(map(str, found)) or 'none'
    raise ValueError(
      f'no checkpoint{"" if step is None else f" of step {step}"} in {directory}; '
      f'there are: {there}'
    )
  return found[-1] if step is None else step


def steps(directory: storage.Path) -> list[int]:
  """The checkpoints that are there whole, in order; none without the directory.

  On disk, a rename has given them their names when they were whole.
  """
  found = [name for name in storage.names(directory) if name.isdigit()]
  if storage.is_bucket(directory):
    found = [name for name in found if storage.exists(directory / name / _LAST)]
  return sorted(int(name) for name in found)


def _remove_half_written(directory: storage.Path) -> None:
  """Removes what a killed process has left in a bucket."""
  whole = map(str, steps(directory))
  for name in set(storage.names(directory)) - set(whole):
    storage.remove(directory / name, _LAST)


def _read(manager: ocp.CheckpointManager, step: int) -> Checkpoint:
  """Reads and verifies.

  Raises:
    DamagedError: this is not what was saved.
  """
  try:
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        **{
          _ARRAYS: ocp.args.StandardRestore(),
          _HOST: ocp.args.JsonRestore(),
          _MANIFEST: ocp.args.JsonRestore(),
        }
      ),
    )
    found = Checkpoint(step, restored[_ARRAYS], restored[_HOST])
    manifest, actual = restored[_MANIFEST], _manifest(found)
  except Exception as error:  # Of any type: that of who stumbled over the damage.
    raise DamagedError(_one_line(error)) from error
  if manifest != actual:
    names = [name for name in actual if actual[name] != manifest.get(name)]
    raise DamagedError(f'{names[0] if names else "an array"} is not what was saved')
  return found


def _manifest(checkpoint: Checkpoint) -> dict[str, str]:
  """A digest of every array, by its path, and of the host's values."""
  # Types and shapes are hashed too: the same bytes can be other numbers.
  arrays = {
    f'{_ARRAYS}/{name}': _digest(f'{x.dtype}{x.shape}'.encode(), x)
    for name, x in flatten(checkpoint.arrays).items()
  }
  host = json.dumps(checkpoint.host, sort_keys=True).encode()
  return arrays | {_HOST: _digest(host)}


def _digest(*parts: bytes | np.ndarray) -> str:
  digest = hashlib.sha256()
  for part in parts:
    # NumPy's own types have a buffer; bfloat16 has none, as bytes it does.
    digest.update(
      part
      if isinstance(part, bytes)
      else np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    )
  return digest.hexdigest()


def flatten(tree: chex.ArrayTree) -> dict[str, Any]:
  """Leaves by their path; the same for named tuples as for the dicts read from disk."""
  return {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _fit(found: Checkpoint, like: chex.ArrayTree) -> chex.ArrayTree:
  """The arrays that were read, in the structure that is wanted."""
  there, wanted = flatten(found.arrays), flatten(like)
  describe: Callable = lambda x: 'nothing' if x is None else f'{x.dtype}{x.shape}'
  differing = [
    f'{name} is {describe(there.get(name))}, expected {describe(wanted.get(name))}'
    for name in sorted(there.keys() | wanted.keys())
    if describe(there.get(name)) != describe(wanted.get(name))
  ]
  if differing:
    raise ValueError(
      f'the checkpoint of step {found.step} does not fit: {"; ".join(differing[:5])}; '
      'use the configuration that it was made with'
    )
  return jax.tree_util.tree_map_with_path(lambda path, _: there[_name(path)], like)


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())[:_MOST_OF_MESSAGE] or type(error).__name__
