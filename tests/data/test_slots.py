"""Shared memory that is used again and again."""

from multiprocessing import shared_memory

import numpy as np
import pytest

from sslhsic.data import slots


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


def test_slots_are_removed_with_their_process(sender):
  sent = _send(sender, 1)
  sender.remove()
  with pytest.raises(FileNotFoundError):
    shared_memory.SharedMemory(sent.slot)
