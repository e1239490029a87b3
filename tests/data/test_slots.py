"""Shared memory that is used again and again."""

import errno
import os
from multiprocessing import shared_memory

import numpy as np
import pytest

from sslhsic.data import slots
from sslhsic.data.errors import InputError


@pytest.fixture
def sender():
  made = slots.Slots()
  yield made
  made.remove()


def _send(sender, number, shape=(3, 4)):
  array, sent = sender.empty(shape, np.uint8)
  array[...] = number
  return sent


def test_slot_is_used_again_once_its_array_was_received(sender):
  received = slots.Received()
  first, second = _send(sender, 1), _send(sender, 2)
  assert first.slot != second.slot
  joined = received.concatenate([first, second])
  third = _send(sender, 3, shape=(2, 4))  # A smaller array fits as well.
  assert third.slot == first.slot
  np.testing.assert_array_equal(joined[:, 0], [1, 1, 1, 2, 2, 2])  # It was copied.
  np.testing.assert_array_equal(received.concatenate([third]), np.full((2, 4), 3))
  large = _send(sender, 4, shape=(100, 100))
  assert large.slot not in {first.slot, second.slot}
  received.close()


def test_memory_that_is_not_there_is_an_error_and_not_the_end(sender, monkeypatch):
  before = {path.name for path in slots._DIRECTORY.iterdir()}

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'posix_fallocate', full)
  message = r'shared memory is full \(No space left.* 1\.0 MiB more .*--shm-size=2g'
  with pytest.raises(InputError, match=message):
    sender.empty((2**20,), np.uint8)
  assert {path.name for path in slots._DIRECTORY.iterdir()} <= before


def test_slots_are_removed_with_their_process(sender):
  sent = _send(sender, 1)
  sender.remove()
  with pytest.raises(FileNotFoundError):
    shared_memory.SharedMemory(sent.slot)
