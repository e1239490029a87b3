"""Arrays from worker processes in shared memory that is used again and again.

A worker takes a slot, writes an array into it and sends where it is; the loader copies
the array out and frees the slot. The first touch of fresh memory costs as much as
several copies of it, which is why arrays do not get memory of their own.
"""

import dataclasses
import math
import os
import pathlib
from multiprocessing import shared_memory, util

import numpy as np

from sslhsic.data.errors import InputError

_HEADER = 64  # Bytes before the array; the first says whether the slot is taken.
_FREE, _TAKEN = 0, 1
_DIRECTORY = pathlib.Path('/dev/shm')  # Of shared memory, on Linux.


@dataclasses.dataclass(frozen=True)
class Sent:
  """An array in a slot, as it is sent to the loader.

  Attributes:
    slot: name of the shared memory.
    shape, dtype: of the array.
  """

  slot: str
  shape: tuple[int, ...]
  dtype: str


class Slots:
  """The slots of a worker process; they are removed when it ends."""

  def __init__(self):
    self._slots: list[shared_memory.SharedMemory] = []
    # `multiprocessing` calls this when a worker ends in an orderly way.
    util.Finalize(None, self.remove, exitpriority=10)

  def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, Sent]:
    """An array in a free slot, to be written, and what to send when it is.

    Raises:
      InputError: there is no shared memory left for it.
    """
    size = _HEADER + math.prod(shape) * np.dtype(dtype).itemsize
    # The loader sets this byte to free a slot: no message has to go back.
    free = (x for x in self._slots if x.buf[0] == _FREE and x.size >= size)
    slot = next(free, None)
    if slot is None:
      slot = _reserve(size)
      self._slots.append(slot)
    slot.buf[0] = _TAKEN
    sent = Sent(slot.name, shape, np.dtype(dtype).str)
    return _array(slot, sent), sent

  def remove(self) -> None:
    """Gives the memory back, once the loader has let go of it too."""
    while self._slots:
      self._slots.pop().unlink()


class Received:
  """The slots of workers, as the loader sees them."""

  def __init__(self):
    self._slots: dict[str, shared_memory.SharedMemory] = {}

  def concatenate(self, parts: list[np.ndarray | Sent]) -> np.ndarray:
    """One array of all parts; frees their slots."""
    joined = np.concatenate([self._open(part) for part in parts])
    # The copy is complete: the worker may overwrite the slots from here on.
    for part in parts:
      if isinstance(part, Sent):
        self._slots[part.slot].buf[0] = _FREE
    return joined

  def _open(self, part: np.ndarray | Sent) -> np.ndarray:
    if not isinstance(part, Sent):
      return part
    if part.slot not in self._slots:
      self._slots[part.slot] = shared_memory.SharedMemory(part.slot)
    return _array(self._slots[part.slot], part)

  def close(self) -> None:
    """Lets go of all slots."""
    for slot in self._slots.values():
      slot.close()
    self._slots.clear()


def _reserve(size: int) -> shared_memory.SharedMemory:
  """New shared memory that is there: without that, a write into it ends the process."""
  try:
    slot = shared_memory.SharedMemory(create=True, size=size)
    try:
      _allocate(_DIRECTORY / slot.name, size)
    except OSError:
      slot.close()
      slot.unlink()
      raise
  except OSError as error:
    raise InputError(
      f'shared memory is full ({error.strerror}): a worker process needs '
      f'{size / 2**20:.1f} MiB more in {_DIRECTORY}; give the container more of it '
      '(docker run --shm-size=2g), or set config.data.num_workers lower'
    ) from error
  return slot


def _allocate(file: pathlib.Path, size: int) -> None:
  if not file.exists():  # Shared memory is a file on Linux alone.
    return
  descriptor = os.open(file, os.O_RDWR)
  try:
    # Fails now if memory is short, where a later write would raise SIGBUS.
    os.posix_fallocate(descriptor, 0, size)
  finally:
    os.close(descriptor)


def _array(slot: shared_memory.SharedMemory, sent: Sent) -> np.ndarray:
  return np.ndarray(sent.shape, sent.dtype, buffer=slot.buf, offset=_HEADER)
