"""Sizes of images, as they are decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from sslhsic.data import image_sizes, images, sources
from sslhsic.data.errors import DecodeError, InputError


class _Source:
  """Examples of these images."""

  num_classes = 0

  def __init__(self, *values):
    self.values = values

  def __len__(self):
    return len(self.values)

  def __getitem__(self, row):
    if isinstance(self.values[row], Exception):
      raise self.values[row]
    return {'image': self.values[row]}

  def name(self, row):
    return f'row {row}'


def _encoded(height, width, suffix, orientation=1):
  file = io.BytesIO()
  exif = Image.Exif()
  exif[274] = orientation
  Image.new('RGB', (width, height)).save(file, suffix, exif=exif)
  return file.getvalue()


VALUES = [
  _encoded(3, 5, 'PNG'),
  _encoded(7, 4, 'JPEG'),
  *(_encoded(3, 5, 'JPEG', orientation) for orientation in range(1, 9)),
  np.zeros((2, 9, 3), np.uint8),
]


def test_sizes_are_those_of_the_decoded_images():
  found = image_sizes.of(_Source(*VALUES))
  expected = [images.decode(value).shape[:2] for value in VALUES]
  np.testing.assert_array_equal(found, expected)
  assert found[2:10].tolist() == [[3, 5]] * 4 + [[5, 3]] * 4


def test_sources_of_sources():
  source = _Source(*VALUES)
  sizes = image_sizes.of(source)
  subset = sources.SubsetSource(source, np.array([9, 1]))
  both = sources.ConcatenatedSource(subset, source)
  np.testing.assert_array_equal(image_sizes.of(both)[:2], sizes[[9, 1]])
  np.testing.assert_array_equal(image_sizes.of(both)[2:], sizes)


def test_known_sizes_are_not_read():
  source = _Source(OSError('unread'))
  source.sizes = np.array([[6, 7]])
  assert image_sizes.of(source).tolist() == [[6, 7]]


def test_what_is_no_image_has_no_size_and_what_cannot_be_read_is_named():
  damaged = DecodeError('its record is damaged')
  assert image_sizes.of(_Source(b'no image', damaged)).tolist() == [[0, 0]] * 2
  with pytest.raises(InputError, match='cannot read row 0: gone'):
    image_sizes.of(_Source(OSError('gone')))
