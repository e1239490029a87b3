"""Objects and depth of data sets of TFDS."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sslhsic.data import images, sources
from sslhsic.data.errors import DecodeError
from tests import tfds_data_sets

NAMES = ('cat', 'dog', 'bird')
DEPTH = {'depth': tfds.features.Tensor(shape=(30, 40), dtype=np.float16)}


def _objects(**more):
  """Features of objects, as TFDS's VOC and COCO have them."""
  return {
    'objects': tfds.features.Sequence(
      {
        'bbox': tfds.features.BBoxFeature(),
        'label': tfds.features.ClassLabel(names=NAMES),
        **more,
      }
    )
  }


def _boxes(number):
  """Pixels (x1, y1, x2, y2) of as many boxes as the number says, of an image of 40."""
  rng = np.random.default_rng(number)
  corner = rng.integers(0, 12, (number, 2))
  return np.concatenate([corner, corner + rng.integers(1, 12, (number, 2))], axis=1)


def _entries(number, first_pixel, **more):
  """Objects as TFDS writes them, whose pixels count from `first_pixel`."""
  height, width = 24 + number % 32, 40
  return {
    'objects': [
      {
        'bbox': tfds.features.BBox(
          ymin=(y1 + first_pixel) / height,
          xmin=(x1 + first_pixel) / width,
          ymax=y2 / height,
          xmax=x2 / width,
        ),
        'label': (number + place) % 3,
        **{key: function(place) for key, function in more.items()},
      }
      for place, (x1, y1, x2, y2) in enumerate(_boxes(number))
    ]
  }


def _depth(number):
  return np.random.default_rng(number).uniform(0, 10, (30, 40)).astype(np.float16)


@pytest.fixture(scope='module')
def dense(tmp_path_factory, encoded_image):
  """The folder where TFDS has prepared three small data sets."""
  directory = tmp_path_factory.mktemp('dense')
  is_odd = lambda place: place % 2 == 1
  voc = _objects(is_difficult=np.bool_, is_truncated=np.bool_)
  voc |= {'labels': tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES))}
  coco = _objects(is_crowd=np.bool_, area=np.int64, id=np.int64)
  of_voc = lambda number: {
    'labels': [0],
    **_entries(number, 1, is_difficult=is_odd, is_truncated=lambda place: True),
  }
  of_coco = lambda number: _entries(
    number, 0, is_crowd=is_odd, area=lambda place: 7 * place, id=lambda place: place
  )
  of_depth = lambda number: {'depth': _depth(number)}
  for name, features, make, encode in (
    ('toy_voc', voc, of_voc, encoded_image),
    ('toy_coco', coco, of_coco, encoded_image),
    ('toy_depth', DEPTH, of_depth, lambda number: encoded_image(6, '.png')),
  ):
    tfds_data_sets.prepare(directory, name, features, make, {'train': 5}, encode=encode)
  return directory


@pytest.fixture(autouse=True)
def _data_dir(dense, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(dense))


@pytest.mark.parametrize('name', ['toy_voc', 'toy_coco'])
def test_objects_are_in_pixels_that_count_from_zero(name):
  source = sources.create(f'tfds:{name}', 'train')
  assert sources.annotations(source, 'boxes').object_classes == NAMES
  assert sources.annotations(source, 'boxes').kinds == {'boxes'}
  numbers = []
  for example in (source[index] for index in range(5)):
    number = int(images.decode(example['image'])[0, 0, 2])
    boxes, places = _boxes(number), np.arange(number)
    np.testing.assert_allclose(example['boxes'], boxes, atol=1e-4)
    np.testing.assert_array_equal(example['classes'], (number + places) % 3)
    np.testing.assert_array_equal(example['ignore'], places % 2 == 1)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = 7 * places if name == 'toy_coco' else sides[:, 0] * sides[:, 1]
    np.testing.assert_allclose(example['area'], area, atol=1e-2)
    found = [example[key] for key in ('boxes', 'classes', 'ignore', 'area')]
    assert [x.dtype for x in found] == ['float32', 'int32', 'bool', 'float32']
    assert [x.shape for x in found] == [(number, 4), *[(number,)] * 3]
    numbers.append(number)
  assert sorted(numbers) == [0, 1, 2, 3, 4]
  assert 'tensorflow' not in sys.modules


def test_depth_is_in_metres():
  source = sources.create('tfds:toy_depth', 'train')
  assert sources.annotations(source, 'depth').kinds == {'depth'}
  found = {source[index]['depth'].tobytes() for index in range(5)}
  assert found == {_depth(number).astype(np.float32).tobytes() for number in range(5)}
  depth = source[0]['depth']
  assert (depth.dtype, depth.shape) == ('float32', (30, 40))


def test_labels_of_pictures_are_as_without_objects():
  source = sources.create('tfds:toy_voc', 'train')
  np.testing.assert_array_equal(source.labels, [[1, 0, 0]] * 5)
  assert sources.create('tfds:toy_coco', 'train').num_classes == 0


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp'])
def test_size_is_read_from_the_header(encoded_image, suffix):
  encoded = encoded_image(6, suffix)
  assert images.size(encoded) == (30, 40)
  for damaged in (b'', b'text', encoded[:10]):
    with pytest.raises(DecodeError, match=r'are no image|have the damaged header'):
      images.size(damaged)


def test_numbers_of_more_bits_are_bad(tmp_path, encoded_image, monkeypatch):
  """As the ids that some data sets have, of int64."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  features = {'id': tfds.features.Scalar(np.int64)}
  tfds_data_sets.prepare(
    tmp_path,
    'ids',
    features,
    lambda number: {'id': 2**33 + number},
    {'train': 2},
    encode=encoded_image,
  )
  source = sources.with_metadata(sources.create('tfds:ids', 'train'), 'id')
  with pytest.raises(DecodeError, match=r'id is 858993459\d, which is no int32'):
    _ = source[0]
