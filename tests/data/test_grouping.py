"""Batches of one group: in what order, and on any number of hosts."""

import dataclasses

import numpy as np
import pytest

from sslhsic.data import grouping, loader, sources

GROUPS = np.array([0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0], bool)  # 3 of 11.


def _rows(order, num):
  return np.array([order[i] for i in range(num)])


@pytest.mark.parametrize('batch_size', [1, 4])
def test_batches_are_of_one_group_in_proportion(batch_size):
  order = grouping.create(GROUPS, batch_size, seed=3)
  batches = _rows(order, 110 * batch_size).reshape(-1, batch_size)
  groups = GROUPS[batches]
  assert np.all(groups == groups[:, :1])
  counts = np.cumsum(groups[:, 0])
  np.testing.assert_array_equal(counts, np.arange(1, 111) * 3 // 11)


def test_each_row_comes_once_an_epoch_of_its_group():
  rows = _rows(grouping.create(GROUPS, 2, seed=0), 11 * 48)
  for group in (False, True):
    own = np.flatnonzero(group == GROUPS)
    of_group = rows[GROUPS[rows] == group].reshape(-1, len(own))
    np.testing.assert_array_equal(np.sort(of_group, axis=1), own + 0 * of_group)
    assert len(np.unique(of_group, axis=0)) > 1  # Shuffled anew.
  again, other = (_rows(grouping.create(GROUPS, 2, seed=x), 9) for x in (0, 1))
  np.testing.assert_array_equal(again, rows[:9])
  assert not np.array_equal(other, rows[:9])


@dataclasses.dataclass(frozen=True)
class _Shapes:
  """Images of two shapes, by their group; row 0 and row 1 cannot be decoded."""

  num_classes = 0

  def __len__(self):
    return len(GROUPS)

  def __getitem__(self, row):
    if row < 2:
      return {'image': b'no image', 'label': np.int32(row)}
    shape = (2, 3, 1) if GROUPS[row] else (3, 2, 1)
    return {'image': np.full(shape, row, np.uint8), 'label': np.int32(row)}

  def name(self, row):
    return f'row {row}'


def _make(rng, example):
  return {'image': example['image'], 'label': example['label']}


def _stream(**settings):
  return loader.Stream(
    _Shapes(),
    make=_make,
    batch_size=4,
    seed=0,
    max_bad_fraction=1.0,
    groups=GROUPS,
    **settings,
  )


def test_hosts_share_batches_and_bad_images_are_replaced_within_the_group():
  whole = _stream()
  hosts = [_stream(host_index=i, host_count=2) for i in range(2)]
  batches = [next(whole) for _ in range(12)]
  for batch in batches:
    parts = [next(host) for host in hosts]
    for name, values in batch.items():
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, values)
    assert len(set(GROUPS[batch['label']])) == 1
  assert whole.bad_images.rows == {0, 1}
  resumed = _stream()
  resumed.set_state({'batches_taken': 11, 'bad_images': []})
  np.testing.assert_array_equal(next(resumed)['image'], batches[11]['image'])
  names = whole.describe(11)['row']
  assert [GROUPS[x] for x in names] == [GROUPS[batches[11]['label'][0]]] * 4


def test_without_groups_the_order_is_as_ever():
  images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
  source = sources.ArraySource(images, np.arange(20, dtype=np.int32), 20)
  settings = {'make': _make, 'batch_size': 5, 'seed': 2}
  plain = loader.Stream(source, **settings)
  of_one = loader.Stream(source, groups=np.zeros(20, bool), **settings)
  for _ in range(6):
    np.testing.assert_array_equal(next(plain)['label'], next(of_one)['label'])
