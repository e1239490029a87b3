"""The streams of views, and one pass."""

import errno
import functools
import logging
import multiprocessing
import os
import threading

import cv2
import jax
import numpy as np
import pytest
from absl import flags

from sslhsic.data import loader, reading, sources
from sslhsic.data.errors import DecodeError, InputError


def _source(count=10):
  images = np.arange(count, dtype=np.uint8)[:, None, None, None]
  return sources.ArraySource(images, np.arange(count, dtype=np.int32), count)


def _take(batches, count):
  return [next(batches) for _ in range(count)]


def _assert_equal(batches, expected):
  for batch, wanted in zip(batches, expected, strict=True):
    assert batch.keys() == wanted.keys()
    for key, value in wanted.items():
      np.testing.assert_array_equal(batch[key], value)


@pytest.fixture
def small_chunks(monkeypatch):
  """Chunks of which batches are no multiple."""
  monkeypatch.setattr(loader, '_CHUNK_SIZE', 3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, write_images):
  """A folder of 20 images in two classes, two of them corrupt."""
  root = tmp_path_factory.mktemp('folder')
  write_images(root / 'cat', 10, suffix='.jpg')
  write_images(root / 'dog', 10, first=10, suffix='.png')
  (root / 'cat' / '3.jpg').write_bytes((root / 'cat' / '3.jpg').read_bytes()[:-50])
  (root / 'dog' / '14.png').write_bytes(b'no image')
  return root


@pytest.fixture(params=['array', 'tfds', 'folder'])
def any_source(request):
  """A source of each kind, with its crop."""
  if request.param == 'array':
    return _source(), lambda rng, image: np.uint8(rng.integers(256, size=image.shape))
  if request.param == 'tfds':
    request.getfixturevalue('tfds_data')
    return sources.create('tfds:toy', 'train'), loader.random_crop(8)
  path = request.getfixturevalue('folder')
  return sources.create(f'folder:{path}', 'train'), loader.random_crop(8)


def test_batch_holds_both_views_labels_and_global_indices():
  first, second = _take(loader.views(_source(), batch_size=4, seed=0), 2)
  assert first['view1'].shape == first['view2'].shape == (4, 1, 1, 1)
  np.testing.assert_array_equal(first['view1'][:, 0, 0, 0], first['label'])
  np.testing.assert_array_equal(first['index'], [0, 1, 2, 3])
  np.testing.assert_array_equal(second['index'], [4, 5, 6, 7])
  assert [value.dtype for value in first.values()] == [
    'uint8',
    'uint8',
    'int32',
    'uint32',
  ]


def test_batch_is_described_for_all_hosts():
  stream = loader.views(_source(), batch_size=4, seed=0, host_index=1, host_count=2)
  batch = _take(stream, 2)[1]
  described = stream.describe(1)
  assert described['index'] == [4, 5, 6, 7]
  np.testing.assert_array_equal(described['row'][2:], batch['label'])
  assert described['name'] == [_source().name(row) for row in described['row']]


class _FailingOnce(sources.ArraySource):
  """A source of which the first read of several examples fails."""

  failures = 0

  def take(self, rows):
    if np.ndim(rows) and not type(self).failures:
      type(self).failures += 1
      raise OSError(errno.EIO, 'Input/output error')
    return super().take(rows)

  def __getitem__(self, row):
    return self.take(row)


def test_examples_that_cannot_be_read_at_once_are_read_one_by_one():
  plain = _source()
  source = _FailingOnce(plain.images, plain.labels, plain.num_classes)
  settings = {'batch_size': 4, 'seed': 0}
  expected = _take(loader.views(_OneByOne(plain), **settings), 2)
  _assert_equal(_take(loader.views(source, **settings), 2), expected)
  assert _FailingOnce.failures == 1


class _OneByOne:
  """A source of which examples cannot be taken at once."""

  def __init__(self, source):
    self._source = source
    self.labels, self.num_classes = source.labels, source.num_classes

  def __len__(self):
    return len(self._source)

  def __getitem__(self, row):
    return self._source[row]

  def name(self, row):
    return self._source.name(row)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('num_workers', [0, 1])
def test_images_in_memory_that_no_crop_changes_are_taken_at_once(num_workers):
  # Rows of a subset, and of the last batch of a pass, which is not full.
  source = sources.SubsetSource(_source(12), np.arange(11)[::-1])
  views = lambda source, workers: _take(
    loader.views(source, batch_size=8, seed=0, num_workers=workers), 3
  )
  settings = {'batch_size': 4, 'host_index': 0, 'host_count': 1}
  one_by_one = _OneByOne(source)
  _assert_equal(views(source, num_workers), views(one_by_one, 0))
  hosts = {'host_index': 1, 'host_count': 2}
  shares = [
    _take(loader.views(x, batch_size=8, seed=0, **hosts), 3)
    for x in (source, one_by_one)
  ]
  _assert_equal(*shares)
  passes = [list(loader.one_pass(x, **settings)) for x in (source, one_by_one)]
  _assert_equal(*passes)
  for batch, expected in zip(*passes, strict=True):
    assert {x.dtype for x in batch.values()} == {x.dtype for x in expected.values()}


def test_one_view_has_labels_of_any_kind(tfds_data):
  source = sources.create('tfds:toy_multi', 'train')
  stream = loader.one_view(source, batch_size=4, seed=0, crop=loader.random_crop(8))
  batch = next(stream)
  assert batch['image'].shape == (4, 8, 8, 3)
  assert batch['label'].shape == (4, 5)
  # The images of even numbers are difficult in class 4, and to be ignored there.
  numbers = batch['image'][:, 0, 0, 2]
  np.testing.assert_array_equal(batch['label'][:, 4], np.where(numbers % 2, 1, -1))


def test_views_are_two_crops_of_one_image(folder):
  source = sources.create(f'folder:{folder}', 'train')
  batch = next(
    loader.views(
      source,
      batch_size=18,
      seed=0,
      crops=(loader.random_crop(8),) * 2,
      max_bad_fraction=0.1,
    )
  )
  number = lambda view: batch[view][..., 2].mean(axis=(1, 2)).round()
  np.testing.assert_allclose(number('view1'), number('view2'), atol=4)
  assert np.all(np.any(batch['view1'] != batch['view2'], axis=(1, 2, 3)))


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('host_count', [1, 2, 4])
def test_no_example_is_missing_or_doubled_in_an_epoch(host_count):
  parts = [
    loader.views(
      _source(40), batch_size=8, seed=0, host_index=host, host_count=host_count
    )
    for host in range(host_count)
  ]
  epochs = [
    np.concatenate([batch['label'] for part in parts for batch in _take(part, 5)])
    for _ in range(3)
  ]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
  assert np.any(epochs[0] != epochs[1])


def test_stream_depends_on_the_seed_alone():
  labels = lambda seed: [
    batch['label'].tolist()
    for batch in _take(loader.views(_source(), batch_size=4, seed=seed), 5)
  ]
  assert labels(0) == labels(0)
  assert labels(0) != labels(1)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('host_count', [1, 2, 4])
def test_hosts_share_the_same_global_batches(any_source, host_count):
  source, crop = any_source
  stream = functools.partial(
    loader.views,
    source,
    batch_size=16,
    seed=0,
    crops=(crop, crop),
    max_bad_fraction=0.1,
  )
  parts = [
    _take(stream(host_index=host, host_count=host_count), 4)
    for host in range(host_count)
  ]
  joined = [
    {key: np.concatenate([part[step][key] for part in parts]) for key in parts[0][0]}
    for step in range(4)
  ]
  _assert_equal(joined, _take(stream(), 4))


def test_host_is_that_of_jax(monkeypatch):
  expected = next(loader.views(_source(), batch_size=8, seed=0))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  batch = next(loader.views(_source(), batch_size=8, seed=0))
  np.testing.assert_array_equal(batch['index'], expected['index'][4:])


def test_batch_that_does_not_divide_over_hosts_is_refused():
  with pytest.raises(ValueError, match='batch size 6 does not divide over 4 hosts'):
    loader.views(_source(), batch_size=6, seed=0, host_index=0, host_count=4)


@pytest.mark.usefixtures('small_chunks')
def test_stream_goes_on_from_the_state_of_any_step(any_source):
  source, crop = any_source
  stream = functools.partial(
    loader.views, source, batch_size=8, seed=0, crops=(crop, crop), max_bad_fraction=0.1
  )
  whole, states, expected = stream(), [], []
  for _ in range(9):  # Epochs end within batches.
    states.append(whole.get_state())
    expected.append(next(whole))
  for step, state in enumerate(states):
    resumed = stream()
    resumed.set_state(state)
    _assert_equal(_take(resumed, 9 - step), expected[step:])
    assert resumed.get_state() == whole.get_state()


def test_worker_processes_make_the_same_stream(folder):
  """With two workers, also when a stream goes on, and what they raise."""
  source = sources.create(f'folder:{folder}', 'train')
  stream = functools.partial(loader.views, source, batch_size=8, seed=0)
  cropped = {'crops': (loader.random_crop(8),) * 2, 'max_bad_fraction': 0.1}
  expected = _take(stream(**cropped), 6)
  whole = stream(**cropped, num_workers=2)
  _assert_equal(_take(whole, 2), expected[:2])
  state = whole.get_state()
  _assert_equal(_take(whole, 4), expected[2:])  # Across the border of an epoch.
  whole.set_state(state)
  _assert_equal(_take(whole, 4), expected[2:])
  whole.close()
  # As in a script that parses no flags.
  flags.FLAGS.unparse_flags()
  with pytest.raises(InputError, match='images differ in size'):
    next(stream(num_workers=1))


@pytest.mark.parametrize('count', [3, 32])  # In one chunk, and in two.
@pytest.mark.parametrize(
  ('shape', 'message'),
  [((7, 7, 1), 'images differ in size'), ((6, 6, 4), 'in their number of channels')],
)
def test_images_of_different_shapes_are_an_error(count, shape, message):
  labels = np.zeros(count, np.int32)
  halves = [
    sources.ArraySource(np.zeros((count, *x), np.uint8), labels, 1)
    for x in ((6, 6, 1), shape)
  ]
  with pytest.raises(InputError, match=message):
    next(loader.one_pass(sources.ConcatenatedSource(*halves), batch_size=2 * count))


def test_worker_that_is_killed_is_an_error():
  stream = loader.views(_source(), batch_size=8, seed=0, num_workers=1)
  next(stream)
  (worker,) = multiprocessing.active_children()
  worker.kill()
  with pytest.raises(InputError, match=r'has ended \(exit code -9\)'):
    _take(stream, 100)


def test_device_iterator_goes_on_from_its_state():
  stream = functools.partial(loader.views, _source(), batch_size=8, seed=0)
  expected = _take(stream(), 6)
  interrupted = loader.DeviceIterator(stream())
  _take(interrupted, 3)
  resumed = loader.DeviceIterator(stream())
  resumed.restore(interrupted.state)
  for batch, wanted in zip(_take(resumed, 3), expected[3:], strict=True):
    np.testing.assert_array_equal(batch['label'].reshape(-1), wanted['label'])
    np.testing.assert_array_equal(batch['index'].reshape(-1), wanted['index'])


class _FailsOnce:
  """Batches that hold their number, of which one cannot be made at first."""

  def __init__(self, bad):
    self.number, self.bad, self.threads = 0, bad, set()

  def __next__(self):
    self.threads.add(threading.current_thread())
    if self.number == self.bad:
      self.bad = None
      raise InputError('too many images are bad')
    self.number += 1
    return {'label': np.full(8, self.number - 1)}

  def get_state(self):
    return {'batches_taken': self.number}

  def set_state(self, state):
    self.number = state['batches_taken']


def test_error_comes_in_the_place_of_its_batch_which_is_tried_again():
  batches = _FailsOnce(bad=3)
  iterator = loader.DeviceIterator(batches)
  numbers = [int(batch['label'][0, 0]) for batch in _take(iterator, 3)]
  with pytest.raises(InputError, match='too many images are bad'):
    next(iterator)
  assert iterator.state == {'batches_taken': 3}
  numbers += [int(batch['label'][0, 0]) for batch in _take(iterator, 3)]
  assert numbers == list(range(6))
  assert threading.main_thread() not in batches.threads


def test_device_iterator_spreads_batches_and_counts_waiting():
  iterator = loader.DeviceIterator(loader.views(_source(), batch_size=8, seed=0))
  batch = next(iterator)
  assert batch['view1'].shape == (8, 1, 1, 1, 1)
  assert iterator.wait_s > 0
  assert iterator.num_bad_images == 0


def test_corrupt_images_are_skipped_named_and_counted(folder, caplog):
  source = sources.create(f'folder:{folder}', 'train')
  stream = loader.views(
    source,
    batch_size=20,
    seed=0,
    crops=(loader.random_crop(8),) * 2,
    max_bad_fraction=0.1,
  )
  with caplog.at_level(logging.WARNING):
    first = next(stream)
    next(stream)
  assert len(stream.bad_images.rows) == 2
  bad = {str(folder / 'cat' / '3.jpg'), str(folder / 'dog' / '14.png')}
  assert {source.name(row) for row in stream.bad_images.rows} == bad
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 2  # Once each, though met in both epochs.
  assert all(any(name in message for message in messages) for name in bad)
  # Other images came in their place; those of dogs show their number exactly.
  numbers = first['view1'][first['label'] == 1][:, 0, 0, 2]
  assert set(numbers) <= set(range(10, 20)) - {14}


def test_state_remembers_corrupt_images(folder, caplog):
  source = sources.create(f'folder:{folder}', 'train')
  stream = functools.partial(
    loader.views,
    source,
    batch_size=20,
    seed=0,
    crops=(loader.random_crop(8),) * 2,
    max_bad_fraction=0.1,
  )
  first = stream()
  next(first)
  resumed = stream()
  resumed.set_state(first.get_state())
  caplog.clear()
  with caplog.at_level(logging.WARNING):
    next(resumed)
  assert resumed.bad_images.rows == first.bad_images.rows
  assert not caplog.records


@pytest.mark.parametrize('max_bad_fraction', [0.001, 0.09])
def test_too_many_corrupt_images_stop_the_job(folder, max_bad_fraction):
  source = sources.create(f'folder:{folder}', 'train')
  settings = {'batch_size': 20, 'max_bad_fraction': max_bad_fraction}
  for batches in (
    loader.views(source, seed=0, crops=(loader.random_crop(8),) * 2, **settings),
    loader.one_pass(source, crop=loader.centre_crop(8), **settings),
  ):
    with pytest.raises(InputError, match='2 of 20 images cannot be used') as error:
      next(batches)
    message = str(error.value)
    assert f'a fraction of {max_bad_fraction:g}: ' in message
    assert 'cat/3.jpg: a JPEG of 27×40 pixels that is truncated' in message
    assert 'dog/14.png: 8 bytes are no image' in message
    assert 'raise config.data.max_bad_fraction' in message
    assert '\n' not in message


def test_data_set_of_corrupt_images_stops_the_job(tmp_path):
  for number in range(200):
    (tmp_path / f'{number}.jpg').write_bytes(b'corrupt')
  source = sources.create(f'folder:{tmp_path}', 'train')
  stream = loader.views(source, batch_size=4, seed=0, max_bad_fraction=1.0)
  with pytest.raises(InputError, match='100 images in a row cannot be used'):
    next(stream)


def test_image_that_vanished_is_bad(tmp_path, write_images):
  write_images(tmp_path, 4)
  source = sources.create(f'folder:{tmp_path}', 'train')
  (tmp_path / '2.jpg').unlink()
  one_pass = functools.partial(
    loader.one_pass, source, batch_size=4, crop=loader.centre_crop(8)
  )
  (batch,) = one_pass(max_bad_fraction=0.25)
  assert batch['mask'].sum() == 3
  with pytest.raises(InputError, match=r'2\.jpg: it cannot be read: No such file'):
    list(one_pass(max_bad_fraction=0.24))


@pytest.mark.parametrize('num_workers', [0, 1])
def test_images_that_are_too_large_are_bad_and_the_cause_is_logged(
  folder, num_workers, caplog
):
  source = sources.create(f'folder:{folder}', 'train')
  sizes = [(24 + number % 32) * 40 for number in range(20) if number not in (3, 14)]
  stream = loader.views(
    source,
    batch_size=20,
    seed=0,
    crops=(loader.random_crop(8),),
    num_workers=num_workers,
    max_bad_fraction=1.0,
    max_pixels=sizes[9],
  )
  with caplog.at_level(logging.WARNING):
    next(stream)
  stream.close()
  assert len(stream.bad_images.rows) == 2 + sum(size > sizes[9] for size in sizes)
  assert 'more than config.data.max_pixels = ' in caplog.text


@pytest.mark.parametrize('error', [DecodeError('no mask'), cv2.error('bad size')])
def test_examples_of_which_nothing_can_be_made_are_bad(error):
  class Odd:
    def __call__(self, rng, example):
      if example['label'] == 2:
        raise error
      return {'label': example['label']}

  (batch,) = loader.every_example(
    _source(4), make=Odd(), batch_size=4, max_bad_fraction=0.5
  )
  np.testing.assert_array_equal(batch['label'][batch['mask']], [0, 1, 3])


class _Unreliable(sources.ArraySource):
  """Cannot be read a number of times."""

  failures = 0

  def __getitem__(self, index):
    if self.failures:
      _Unreliable.failures -= 1
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return super().__getitem__(index)


def test_read_that_fails_is_tried_again(monkeypatch, caplog):
  waited = []
  monkeypatch.setattr(reading.time, 'sleep', waited.append)
  plain = _source()
  source = _Unreliable(plain.images, plain.labels, plain.num_classes)
  _Unreliable.failures = 2
  expected = next(loader.views(plain, batch_size=4, seed=0))
  _assert_equal([next(loader.views(source, batch_size=4, seed=0))], [expected])
  assert len(waited) == 2
  assert waited[0] < waited[1]
  assert caplog.text.count('Input/output error): next try in') == 2
  _Unreliable.failures = 10**6
  with pytest.raises(InputError, match=r'cannot read example . in 6 tries: .*In'):
    next(iter(loader.one_pass(source, batch_size=1)))
  _Unreliable.failures = 0  # Threads may be ahead.


def test_negative_seed_is_an_error():
  with pytest.raises(ValueError, match='the seed is -1; use 0 or more'):
    loader.views(_source(), batch_size=4, seed=-1)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('count', [1, 8, 10, 16])
@pytest.mark.parametrize('host_count', [1, 2, 4])
def test_one_pass_gives_every_example_once_on_any_number_of_hosts(count, host_count):
  passes = [
    list(
      loader.one_pass(
        _source(count), batch_size=8, host_index=host, host_count=host_count
      )
    )
    for host in range(host_count)
  ]
  # As many batches, of one size, on every host.
  assert {len(batches) for batches in passes} == {-(-count // 8)}
  shapes = {x.shape for batches in passes for batch in batches for x in batch.values()}
  share = 8 // host_count
  assert shapes == {(share, 1, 1, 1), (share,)}
  seen = [
    batch['label'][batch['mask']]
    for step in zip(*passes, strict=True)
    for batch in step
  ]
  np.testing.assert_array_equal(np.concatenate(seen), np.arange(count))


def test_one_pass_masks_corrupt_images(folder):
  source = sources.create(f'folder:{folder}', 'train')
  batches = list(
    loader.one_pass(
      source, batch_size=8, crop=loader.centre_crop(8), max_bad_fraction=0.1
    )
  )
  mask = np.concatenate([batch['mask'] for batch in batches])
  bad = [row for row in range(20) if source.name(row).endswith(('/3.jpg', '/14.png'))]
  np.testing.assert_array_equal(np.flatnonzero(~mask), [*bad, 20, 21, 22, 23])


class _WithGap(sources.ArraySource):
  """Images 40 to 159 are damaged; counts how often images are read."""

  reads = 0

  def __getitem__(self, index):
    _WithGap.reads += 1
    if 40 <= index < 160:
      raise DecodeError('it is damaged')
    return super().__getitem__(index)


def test_one_pass_masks_any_number_of_corrupt_images_in_a_row():
  source = _WithGap(*vars(_source(200)).values())
  batches = list(loader.one_pass(source, batch_size=64, max_bad_fraction=0.9))
  rows = np.concatenate([batch['row'][batch['mask']] for batch in batches])
  np.testing.assert_array_equal(rows, [*range(40), *range(160, 200)])
  # The image in their places is read once, by every thread at most.
  assert _WithGap.reads <= 64 * len(batches) + 16
  with pytest.raises(InputError, match='of 200 images cannot be used'):
    list(loader.one_pass(source, batch_size=64, max_bad_fraction=0.5))


def test_one_pass_crops_as_it_is_told():
  pixels = np.arange(48, dtype=np.uint8).repeat(60).reshape(1, 48, 60, 1)
  source = sources.ArraySource(pixels, np.zeros(1, np.int32), 1)
  one_pass = functools.partial(loader.one_pass, source, batch_size=1)
  (centre,) = one_pass(crop=loader.centre_crop(16))  # 16/48 of 48 pixels.
  np.testing.assert_array_equal(centre['image'], pixels[:, 16:32, 22:38])
  (square,) = one_pass(crop=loader.shorter_side(48))
  np.testing.assert_array_equal(square['image'], pixels[:, :, 6:54])
  smoothed = loader.shorter_side(12, 'bicubic_antialias')
  assert loader.image_shape(source, smoothed) == (12, 12, 1)


def test_files_are_decoded_to_one_channel_and_arrays_are_left_alone(
  write_images, tmp_path
):
  write_images(tmp_path, 4)
  arrays = sources.ArraySource(
    np.ones((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32), 1
  )
  gray = {'batch_size': 4, 'num_channels': 1}
  for source, channels in (
    (sources.create(f'folder:{tmp_path}', 'train'), 1),
    (arrays, 3),
  ):
    crop = loader.centre_crop(8)
    (batch,) = loader.one_pass(source, crop=crop, **gray)
    assert batch['image'].shape == (4, 8, 8, channels)
    batch = next(loader.one_view(source, crop=crop, seed=0, **gray))
    assert batch['image'].shape == (4, 8, 8, channels)
    assert loader.image_shape(source, crop, num_channels=1) == (8, 8, channels)


class _Slow(sources.ArraySource):
  """Answers when eight examples are asked for at once."""

  def __getitem__(self, index):
    _Slow.together.wait(timeout=60)
    return super().__getitem__(index)


def test_several_examples_are_read_at_once():
  plain = _source(16)
  source = _Slow(plain.images, plain.labels, plain.num_classes)
  _Slow.together = threading.Barrier(8)
  (batch,) = loader.one_pass(source, batch_size=16)
  np.testing.assert_array_equal(batch['image'], plain.images)
  assert batch['mask'].all()
