"""Data sets of TFDS, read without TensorFlow."""

import itertools
import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from sslhsic.data import images, loader, sources
from sslhsic.data.errors import InputError
from tests import tfds_data_sets

pytestmark = pytest.mark.usefixtures('tfds_data')


def _numbers(source):
  """The numbers that `encoded_image` has put into the blue channel."""
  decoded = [images.decode(source[i]['image']) for i in range(len(source))]
  return [int(image[0, 0, 2]) for image in decoded]


def test_examples_are_encoded_images_with_their_labels():
  source = sources.create('tfds:toy', 'train')
  assert (len(source), source.num_classes) == (30, 5)
  assert isinstance(source[0]['image'], bytes)
  numbers = _numbers(source)
  assert sorted(numbers) == list(range(30))
  np.testing.assert_array_equal(source.labels, np.array(numbers) % 5)
  assert source.labels.dtype == source[0]['label'].dtype == np.int32
  assert source.name(3) == 'example 3 of tfds:toy, train'
  assert 'tensorflow' not in sys.modules


def test_parts_are_disjoint_and_together_the_whole():
  parts = ['train[:-10]', 'train[-10:]', 'validation']
  numbers = [_numbers(sources.create('tfds:toy', part)) for part in parts]
  assert [len(part) for part in numbers] == [20, 10, 7]
  joined = list(itertools.chain(*numbers))
  assert sorted(joined) == [*range(30), *range(100, 107)]
  assert _numbers(sources.create('tfds:toy', '+'.join(parts))) == joined


def test_several_labels_are_ones_and_zeros_and_difficult_ones_are_ignored():
  source = sources.create('tfds:toy_multi', 'train')
  assert source.num_classes == 5
  for number, label in zip(_numbers(source), source.labels, strict=True):
    expected = np.isin(range(5), [number % 5, 4]).astype(np.int32)
    expected[4] = 1 if number % 2 else -1
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
  ('name', 'split'), [('toy_plain', 'train'), ('toy', 'unlabelled')]
)
def test_without_labels_there_are_no_classes(name, split):
  source = sources.create(f'tfds:{name}', split)
  assert (source.num_classes, source[0]['label']) == (0, -1)


def test_one_label_makes_a_split_labelled(tmp_path, encoded_image, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  label = {'label': tfds.features.ClassLabel(num_classes=2)}
  tfds_data_sets.prepare(
    tmp_path,
    'partly',
    label,
    lambda number: {'label': 1 if number == 3 else -1},
    {'train': 5},
    encode=encoded_image,
  )
  source = sources.create('tfds:partly', 'train')
  assert source.num_classes == 2
  at = _numbers(source).index(3)
  np.testing.assert_array_equal(source.labels, np.where(np.arange(5) == at, 1, -1))
  for row in range(5):
    source = sources.create('tfds:partly', f'train[{row}:{row + 1}]')
    assert source.num_classes == (2 if row == at else 0)


def test_gray_images_are_decoded_by_the_loader(tmp_path, monkeypatch):
  """To the channels that are asked for, and up to a number of pixels."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  pixels = np.arange(24, dtype=np.uint8).reshape(6, 4)
  tfds_data_sets.prepare(
    tmp_path,
    'gray',
    {'image': tfds.features.Image(shape=(None, None, 1))},
    lambda number: {},
    {'train': 2},
    encode=lambda number: cv2.imencode('.png', pixels + number)[1].tobytes(),
  )
  source = sources.create('tfds:gray', 'train')
  for num_channels in (1, 3):
    (batch,) = loader.one_pass(source, batch_size=2, num_channels=num_channels)
    assert batch['image'].shape == (2, 6, 4, num_channels)
    assert sorted(batch['image'].min(axis=(1, 2, 3))) == [0, 1]
  with pytest.raises(InputError, match=r'than config\.data\.max_pixels = 23'):
    next(loader.one_pass(source, batch_size=2, num_channels=1, max_pixels=23))


def test_balanced_subset():
  source = sources.create('tfds:toy', 'train, balanced 10')
  np.testing.assert_array_equal(np.bincount(source.labels), [2] * 5)


def test_directory_of_a_version_is_a_name_too(tfds_data):
  source = sources.create(f'tfds:{tfds_data}/toy/1.0.0', 'validation')
  assert sorted(_numbers(source)) == list(range(100, 107))


def test_data_set_that_is_not_prepared_is_refused_with_the_command(tfds_data):
  with pytest.raises(ValueError, match='is not prepared in') as error:
    sources.create('tfds:imagenette/160px-v2', 'train')
  message = str(error.value)
  assert '\n' not in message
  assert (
    'python -c "import tensorflow_datasets as tfds; tfds.builder('
    f"'imagenette/160px-v2', data_dir='{tfds_data}', file_format='array_record')"
    '.download_and_prepare()"'
  ) in message


def test_other_formats_are_refused_with_the_command(tfds_data, tmp_path):
  version = tmp_path / 'toy' / '1.0.0'
  shutil.copytree(tfds_data / 'toy' / '1.0.0', version)
  info = json.loads((version / 'dataset_info.json').read_text())
  (version / 'dataset_info.json').write_text(
    json.dumps(info | {'fileFormat': 'tfrecord'})
  )
  with pytest.raises(ValueError, match='another format than array_record') as error:
    sources.create(f'tfds:{version}', 'train')
  assert f"tfds.builder('toy', data_dir='{tmp_path}'," in str(error.value)


@pytest.mark.parametrize(
  ('name', 'split', 'message'),
  [
    ('toy', 'test', r"tfds:toy has no split 'test'; it has train \(30 examples\)"),
    ('toy', 'train[:0]', 'holds no example'),
    ('toy_multi', 'train, balanced 50%', "needs one label .* use 'random 50%'"),
    ('/nowhere/1.0.0', 'train', 'tfds:/nowhere/1.0.0 holds no prepared data set'),
  ],
)
def test_wrong_names_are_refused_in_one_line(name, split, message):
  with pytest.raises(ValueError, match=message) as error:
    sources.create(f'tfds:{name}', split)
  assert '\n' not in str(error.value)
