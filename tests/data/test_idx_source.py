"""Small IDX files, whole and damaged."""

import contextlib
import gzip
import pickle

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from sslhsic.data import idx_source, loader, sources
from tests import idx_files, tfds_data_sets

COUNTS = {'train': 12, 't10k': 5}
IMAGES, LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'


def _images(count, first=0, side=(6, 4)):
  return np.random.default_rng(first).integers(0, 256, (count, *side), np.uint8)


def _labels(count, num_classes=4, smallest=0):
  return (np.arange(count) % num_classes + smallest).astype(np.uint8)


def _write(folder, name='{}-{}-idx{}-ubyte', smallest=0):
  """A data set of two splits, gzipped if its names say so."""
  folder.mkdir(exist_ok=True)
  for number, (split, count) in enumerate(COUNTS.items()):
    for kind, array in (
      ('images', _images(count, number)),
      ('labels', _labels(count, smallest=smallest)),
    ):
      content = idx_files.encode(array)
      file = folder / name.format(split, kind, array.ndim)
      file.write_bytes(gzip.compress(content) if file.suffix == '.gz' else content)
  return folder


def _pixels(source):
  return np.stack([source[index]['image'] for index in range(len(source))])


@pytest.mark.parametrize(
  'name',
  [
    '{}-{}-idx{}-ubyte',
    '{}-{}-idx{}-ubyte.gz',
    '{}-{}.idx{}-ubyte',
    'kmnist-{}-{}-idx{}-ubyte.gz',
    'usps-{}-{}.idx{}-ubyte',
  ],
)
def test_splits_are_the_files_of_their_names(tmp_path, name):
  _write(tmp_path, name)
  (tmp_path / 'README.md').write_text('other files do not matter')
  for number, (split, count) in enumerate({'train': 12, 'test': 5}.items()):
    source = sources.create(f'idx:{tmp_path}', split)
    assert (len(source), source.num_classes) == (count, 4)
    np.testing.assert_array_equal(_pixels(source)[..., 0], _images(count, number))
    np.testing.assert_array_equal(source.labels, _labels(count))
  example = source[3]
  assert (example['image'].shape, example['image'].dtype) == ((6, 4, 1), np.uint8)
  assert (example['label'], example['label'].dtype) == (3, np.int32)
  assert source.name(3).startswith(f'image 3 of {tmp_path}/')


def test_test_split_may_be_called_test(tmp_path):
  for split in ('train', 'test'):
    (tmp_path / f'{split}-images-idx3-ubyte').write_bytes(idx_files.encode(_images(4)))
    (tmp_path / f'{split}-labels-idx1-ubyte').write_bytes(idx_files.encode(_labels(4)))
  assert len(sources.create(f'idx:{tmp_path}', 'test')) == 4


def test_parts_and_subsets(tmp_path):
  _write(tmp_path)
  create = lambda split: sources.create(f'idx:{tmp_path}', split)
  train, test = create('train'), create('test')
  part = create('train[4:]')
  np.testing.assert_array_equal(_pixels(part), _pixels(train)[4:])
  np.testing.assert_array_equal(part.labels, train.labels[4:])
  both = create('test+train[50%:]')
  expected = np.concatenate([_pixels(test), _pixels(train)[6:]])
  np.testing.assert_array_equal(_pixels(both), expected)
  assert 'train-images' in both.name(5)
  assert both.name(5).startswith('image 6 of')
  few = create('train, balanced 8, seed 1')
  np.testing.assert_array_equal(np.bincount(few.labels), [2] * 4)
  assert len(create('train, all but balanced 8, seed 1')) == 4


def test_examples_of_one_file_are_taken_at_once(tmp_path):
  source = idx_source.create(str(_write(tmp_path / 'data')), 'train+test')
  rows = np.array([3, 0, 3])
  taken = source.take(rows)
  for name, values in taken.items():
    expected = np.stack([source[row][name] for row in rows])
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == expected.dtype
  # Images of different files can differ in size.
  assert source.take(np.array([0, COUNTS['train']])) is None


def test_gzipped_is_what_has_gzips_magic_whatever_its_name(tmp_path):
  _write(tmp_path, '{}-{}-idx{}-ubyte.gz')
  for file in tmp_path.iterdir():  # As browsers leave them.
    file.write_bytes(gzip.decompress(file.read_bytes()))
  assert len(sources.create(f'idx:{tmp_path}', 'train')) == 12


def test_one_of_several_data_sets_of_a_folder_is_chosen_by_its_prefix(tmp_path):
  _write(tmp_path, 'emnist-letters-{}-{}-idx{}-ubyte.gz', smallest=1)
  _write(tmp_path, 'emnist-digits-{}-{}-idx{}-ubyte.gz')
  source = sources.create(f'idx:{tmp_path}/emnist-digits', 'train')
  assert 'emnist-digits' in source.name(0)
  with pytest.raises(ValueError, match=r'several data sets; name one: idx:\S+digits, '):
    sources.create(f'idx:{tmp_path}', 'train')
  with pytest.raises(
    ValueError, match='the prefixes emnist-digits, emnist-letters; use'
  ):
    sources.create(f'idx:{tmp_path}/emnist-mnist', 'train')


def test_emnist_stands_upright_and_its_letters_are_numbered_from_0(tmp_path):
  _write(tmp_path, 'emnist-letters-{}-{}-idx{}-ubyte', smallest=1)
  source = sources.create(f'idx:{tmp_path}', 'train')
  upright = _images(12).transpose(0, 2, 1)
  np.testing.assert_array_equal(_pixels(source)[..., 0], upright)
  np.testing.assert_array_equal(source.labels, _labels(12))
  assert source.num_classes == 4


def test_class_of_qmnist_is_the_first_of_its_numbers(tmp_path):
  numbers = np.zeros((12, 8), np.int32)
  numbers[:] = 300_000
  numbers[:, 0] = _labels(12)
  (tmp_path / 'qmnist-train-images-idx3-ubyte').write_bytes(
    idx_files.encode(_images(12))
  )
  (tmp_path / 'qmnist-train-labels-idx2-int').write_bytes(
    idx_files.encode(numbers, 0x0C)
  )
  source = sources.create(f'idx:{tmp_path}', 'train')
  np.testing.assert_array_equal(source.labels, _labels(12))


def test_files_are_read_once_and_stay_out_of_pickles(tmp_path, monkeypatch):
  _write(tmp_path)
  read, names = idx_source._read, []
  monkeypatch.setattr(
    idx_source, '_read', lambda file, kind: names.append(file) or read(file, kind)
  )
  made = [sources.create(f'idx:{tmp_path}', part) for part in ('train', 'train[:6]')]
  assert sum(name.endswith(IMAGES) for name in names) == 1
  assert np.shares_memory(made[0][3]['image'], made[1][3]['image'])
  assert not made[0][3]['image'].flags.writeable
  secret = _images(12).tobytes()
  assert secret in (tmp_path / IMAGES).read_bytes()
  assert secret not in pickle.dumps(made[0])


def test_workers_read_the_same_images(tmp_path):
  _write(tmp_path)
  source = sources.create(f'idx:{tmp_path}', 'train')
  make = lambda num_workers: loader.views(
    source,
    batch_size=4,
    seed=0,
    crops=(loader.random_crop(6),) * 2,
    num_workers=num_workers,
  )
  alone, workers = make(0), make(1)
  for _ in range(4):
    expected, batch = next(alone), next(workers)
    assert batch['view1'].shape == (4, 6, 6, 1)
    for key, value in expected.items():
      np.testing.assert_array_equal(batch[key], value)
  workers.close()


def test_tfds_gives_the_same_images(tmp_path, monkeypatch):
  images, labels = _images(12, side=(28, 28)), _labels(12, num_classes=10)
  (tmp_path / IMAGES).write_bytes(idx_files.encode(images))
  (tmp_path / LABELS).write_bytes(idx_files.encode(labels))
  tfds_data_sets.prepare(
    tmp_path / 'tfds',
    'toy_fashion',
    {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=10),
    },
    lambda number: {'label': int(labels[number])},
    {'train': 12},
    encode=lambda number: cv2.imencode('.png', images[number])[1].tobytes(),
  )
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  found = {
    name: sources.create(name, 'train')
    for name in (f'idx:{tmp_path}', 'tfds:toy_fashion')
  }
  sets = []
  for source in found.values():
    assert source.num_classes == 10
    batch = next(loader.one_pass(source, batch_size=12, num_channels=1))
    assert (batch['image'].shape, batch['image'].dtype) == ((12, 28, 28, 1), np.uint8)
    sets.append(
      {
        (image.tobytes(), int(label))
        for image, label in zip(batch['image'], batch['label'], strict=True)
      }
    )
  assert len(sets[0]) == 12
  assert sets[0] == sets[1]  # In another order.


# Errors


def _message(folder, split='train'):
  with pytest.raises(ValueError, match=r'; |: ') as error:
    sources.create(f'idx:{folder}', split)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda content: content[:-30],
      r'is truncated: its header says 12×6×4 values, 288 bytes, but 258 follow; down',
    ),
    (lambda content: content[:10], 'is truncated: it holds 10 bytes, and the header'),
    (lambda content: content[:3], 'is truncated: it holds 3 bytes; download'),
    (lambda content: b'', 'is truncated: it holds 0 bytes; download it again'),
    (lambda content: content + b'\0', 'has trailing bytes: .*, but 289 follow; down'),
    (
      lambda content: b'<!DOCTYPE html>',
      'is no IDX file: it starts with the bytes 3c 21 44 4f, images in IDX format with '
      '00 00 08 03; download',
    ),
    (
      lambda content: b'\0\0\x0d\x03' + content[4:],
      r'does not hold images: .* 00 00 0d 03 \(type 0x0D, 3 dimensions\), images with '
      '00 00 08 03; see that the files have their original names',
    ),
    (
      lambda content: idx_files.encode(_labels(12)),
      r'does not hold images: .* 1 dimensions\)',
    ),
    (
      lambda content: b'\0\0\x08\x03' + b'\xff' * 12,
      'is truncated: its header says 4294967295×4294967295×4294967295 values',
    ),
    (
      lambda content: idx_files.encode(_images(0)),
      r'holds no images: its header says 0×6×4 val',
    ),
    (lambda content: gzip.compress(content)[:-20], 'is truncated: the gzip stream of'),
    (lambda content: gzip.compress(content)[:1], 'is truncated: it holds 1 bytes'),
    (
      lambda content: gzip.compress(content)[:-8] + b'\1' * 8,
      r'is damaged: its gzip stream cannot be decompressed \(CRC check failed',
    ),
    (
      lambda content: gzip.compress(content)[:12] + b'\xff' * 200,
      'is damaged: its gzip stream cannot be decompressed',
    ),
    (lambda content: gzip.compress(content) + b'more', 'is damaged: its gzip stream'),
    (lambda content: gzip.compress(content[:-9]), 'is truncated: its header says'),
    (lambda content: gzip.compress(content + b'1'), 'has trailing bytes: its header'),
  ],
)
def test_wrong_files_of_images_are_refused(tmp_path, change, message):
  file = _write(tmp_path) / IMAGES
  file.write_bytes(change(file.read_bytes()))
  with pytest.raises(ValueError, match=f'{IMAGES} {message}') as error:
    sources.create(f'idx:{tmp_path}', 'train')
  assert '\n' not in str(error.value)
  assert str(tmp_path) in str(error.value)
  assert len(sources.create(f'idx:{tmp_path}', 'test')) == 5  # Which is whole.


@pytest.mark.parametrize('compress', [bytes, gzip.compress])
def test_damage_anywhere_is_noticed_or_leaves_a_readable_file(tmp_path, compress):
  file = _write(tmp_path) / IMAGES
  content = compress(file.read_bytes())
  for place in range(len(content)):
    file.write_bytes(content[:place])
    with pytest.raises(
      ValueError, match=rf'{IMAGES} is truncated: .*; download it aga'
    ):
      idx_source._read(str(file), 'images')
    file.write_bytes(
      content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    )
    with contextlib.suppress(ValueError):  # And of no other kind.
      assert idx_source._read(str(file), 'images').ndim == 3


def _with(content, place, label):
  return content[: place + 8] + bytes([label]) + content[place + 9 :]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda content: content[:-1], f'{LABELS} is truncated: its header says 12 values'),
    (lambda content: content + b'\0', f'{LABELS} has trailing bytes'),
    (
      lambda content: idx_files.encode(_images(12)),
      rf'{LABELS} does not hold labels: .*, labels wi',
    ),
    (
      lambda content: idx_files.encode(_labels(11)),
      rf'{IMAGES} holds 12 images, but \S+{LABELS} 11 labels; use two files of the sa',
    ),
    (
      lambda content: _with(content, 5, 200),
      f'labels in .*{LABELS} go from 0 to 200, but no example has label 4; labels must',
    ),
    (
      lambda content: idx_files.encode(_labels(12, smallest=2)),
      f'labels in .*{LABELS} go from 2 to 5, but none is 0 or 1; labels must be 0 to',
    ),
    (
      lambda content: idx_files.encode(_labels(12, num_classes=3)),
      't10k-labels-idx1-ubyte has the label 3, but the training labels go from 0 to 2',
    ),
    (
      lambda content: idx_files.encode(-np.ones((12, 8), np.int32), 0x0C),
      'go from -1 to -1, but none is 0 or 1',
    ),
  ],
)
def test_wrong_labels_are_refused(tmp_path, change, message):
  file = _write(tmp_path) / LABELS
  file.write_bytes(change(file.read_bytes()))
  with pytest.raises(ValueError, match=message) as error:
    sources.create(f'idx:{tmp_path}', 'train')
  assert '\n' not in str(error.value)


def test_missing_folders_and_files_are_refused(tmp_path):
  for path in ('', tmp_path / 'nowhere' / 'at all'):
    assert 'there is no folder' in _message(path)
    assert 'use idx:PATH, PATH a folder with files such as train-im' in _message(path)
  assert f'no file {tmp_path}/nowhere-train-images-' in _message(tmp_path / 'nowhere')
  message = _message(tmp_path)
  assert 'holds no IDX file; expected names are train-images-idx3-ubyte.gz,' in message
  _write(tmp_path)
  (tmp_path / LABELS).unlink()
  message = _message(tmp_path, 'test')
  assert f'{tmp_path}/{IMAGES} has no file of labels next to it; add it, or' in message
  (tmp_path / IMAGES).unlink()
  assert "no split 'train'; it has test (5 examples)" in _message(tmp_path)
  assert len(sources.create(f'idx:{tmp_path}', 'test')) == 5


def test_unknown_split_is_refused(tmp_path):
  message = _message(_write(tmp_path), 'validation')
  assert "no split 'validation'; it has train (12 examples), test (5" in message


def test_two_files_of_the_same_kind_are_refused(tmp_path):
  _write(tmp_path)
  (tmp_path / f'{IMAGES}.gz').write_bytes(gzip.compress(idx_files.encode(_images(12))))
  message = _message(tmp_path)
  assert f'{IMAGES}.gz and' in message
  assert 'hold the same images; remove one' in message
