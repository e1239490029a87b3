"""Arrays from worker processes in shared memory that is used again and again.

A worker takes a slot, writes an array into it and sends where it is; the loader copies
the array out and frees the slot. The first touch of fresh memory costs as much as
several copies of it, which is why arrays do not get memory of their own.
"""

import dataclasses
import math
from multiprocessing import shared_memory, util

import numpy as np

_HEADER = 64  # Bytes before the array; the first says whether the slot is taken.
_FREE, _TAKEN = 0, 1


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
    util.Finalize(None, self.remove, exitpriority=10)

  def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, Sent]:
    """An array in a free slot, to be written, and what to send when it is."""
    size = _HEADER + math.prod(shape) * np.dtype(dtype).itemsize
    free = (x for x in self._slots if x.buf[0] == _FREE and x.size >= size)
    slot = next(free, None)
    if slot is None:
      slot = shared_memory.SharedMemory(create=True, size=size)
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


def _array(slot: shared_memory.SharedMemory, sent: Sent) -> np.ndarray:
  return np.ndarray(sent.shape, sent.dtype, buffer=slot.buf, offset=_HEADER)
