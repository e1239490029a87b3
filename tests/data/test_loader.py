"""The stream of views, and one pass."""

import jax
import numpy as np
import pytest

from sslhsic.data import loader, sources


def _source(count=10):
  images = np.arange(count, dtype=np.uint8)[:, None, None, None]
  return sources.ArraySource(images, np.arange(count, dtype=np.int32), count)


def _take(batches, count):
  return [next(batches) for _ in range(count)]


def test_every_epoch_holds_every_example_once_in_another_order():
  batches = _take(loader.two_views(_source(), batch_size=4, seed=0), 5)
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(np.sort(labels[:10]), np.arange(10))
  np.testing.assert_array_equal(np.sort(labels[10:]), np.arange(10))
  assert np.any(labels[:10] != labels[10:])


def test_batch_holds_both_views_labels_and_global_indices():
  first, second = _take(loader.two_views(_source(), batch_size=4, seed=0), 2)
  assert first['view1'].shape == first['view2'].shape == (4, 1, 1, 1)
  np.testing.assert_array_equal(first['view1'][:, 0, 0, 0], first['label'])
  np.testing.assert_array_equal(first['index'], [0, 1, 2, 3])
  np.testing.assert_array_equal(second['index'], [4, 5, 6, 7])


def test_stream_depends_on_the_seed_alone():
  labels = lambda seed: [
    batch['label'].tolist()
    for batch in _take(loader.two_views(_source(), batch_size=4, seed=seed), 5)
  ]
  assert labels(0) == labels(0)
  assert labels(0) != labels(1)


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_hosts_share_the_same_global_batches(monkeypatch, hosts):
  crop = lambda rng, image: np.uint8(rng.integers(256, size=image.shape))
  stream = lambda: loader.two_views(_source(), batch_size=8, seed=0, crop=crop)
  expected = _take(stream(), 3)
  monkeypatch.setattr(jax, 'process_count', lambda: hosts)
  parts = []
  for host in range(hosts):
    monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
    parts.append(_take(stream(), 3))
  for step, batch in enumerate(expected):
    for key, value in batch.items():
      joined = np.concatenate([part[step][key] for part in parts])
      np.testing.assert_array_equal(joined, value)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_stream_goes_on_from_a_saved_state(num_workers):
  stream = lambda: loader.two_views(
    _source(), batch_size=8, seed=0, num_workers=num_workers
  )
  expected = _take(stream(), 6)
  interrupted = loader.DeviceIterator(stream())
  _take(interrupted, 3)
  resumed = loader.DeviceIterator(stream())
  resumed.restore(interrupted.state)
  for batch, wanted in zip(_take(resumed, 3), expected[3:], strict=True):
    np.testing.assert_array_equal(batch['label'].reshape(-1), wanted['label'])
    np.testing.assert_array_equal(batch['index'].reshape(-1), wanted['index'])


def test_device_iterator_spreads_batches_and_counts_waiting():
  iterator = loader.DeviceIterator(loader.two_views(_source(), batch_size=8, seed=0))
  batch = next(iterator)
  assert batch['view1'].shape == (8, 1, 1, 1, 1)
  assert iterator.wait_s > 0


def test_one_pass_gives_every_example_once_and_masks_the_rest():
  batches = list(loader.one_pass(_source(), batch_size=4))
  assert [len(batch['label']) for batch in batches] == [4, 4, 4]
  mask = np.concatenate([batch['mask'] for batch in batches])
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(labels[mask], np.arange(10))


def test_one_pass_crops_the_centre():
  images = np.zeros((3, 16, 16, 1), np.uint8)
  source = sources.ArraySource(images, np.zeros(3, np.int32), 1)
  (batch,) = loader.one_pass(source, batch_size=3, crop_size=7)
  assert batch['image'].shape == (3, 7, 7, 1)
