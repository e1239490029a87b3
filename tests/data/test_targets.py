"""Targets that do not fit their image are found when they are read."""

import cv2
import numpy as np
import pytest
from PIL import Image

from sslhsic.data import reading, sources, targets
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import DecodeError, InputError

ANNOTATIONS = Annotations(
  frozenset({'boxes', 'masks', 'segmentation', 'depth'}), ('none', 'disc'), ('a', 'b')
)


def _example(**targets):
  """An image of 20×30 with one object, and these targets."""
  return {
    'image': np.zeros((20, 30, 3), np.uint8),
    'boxes': np.array([[0, 0, 30, 20]], np.float32),
    'classes': np.array([1], np.int32),
    'annotated_size': np.array([20, 30]),
    'masks': np.ones((1, 20, 30), np.uint8),
    'segmentation': np.array([[0, 1, 255]] * 20, np.uint8).repeat(10, axis=1),
    'depth': np.zeros((20, 30), np.float32),
  } | targets


def _boxes(*box):
  return {'boxes': np.array([box], np.float32)}


@pytest.mark.parametrize(
  'fits',
  [
    {},
    _boxes(-0.9, -0.5, 30.9, 20.5),  # Rounded by a tool.
    {'boxes': np.zeros((0, 4), np.float32), 'classes': np.zeros(0, np.int32)},
  ],
)
def test_targets_that_fit_are_let_through_unless_a_class_does_not(fits):
  example = _example(**fits)
  targets.check(example, ANNOTATIONS)
  wrong = example | {'boxes': np.ones((1, 4), np.float32) * [0, 0, 9, 9]}
  with pytest.raises(DecodeError, match='class 2'):
    targets.check(wrong | {'classes': np.array([2], np.int32)}, ANNOTATIONS)


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    (_boxes(-2, 0, 30, 20), r'box 0 is .* 2 pixels beyond the image of 20×30'),
    (_boxes(0, 0, 30, 22), '2 pixels beyond'),
    (_boxes(40, 0, 50, 20), '20 pixels beyond'),
    (_boxes(5, 5, 5, 9), 'of no extent'),
    (_boxes(9, 5, 5, 9), 'of no extent'),
    (_boxes(0, 0, np.nan, 5), 'not finite'),
    (_boxes(0, 0, np.inf, 5), 'not finite'),
    ({'classes': np.array([2], np.int32)}, 'box 0 has class 2; classes are 0 to 1'),
    ({'classes': np.array([-1], np.int32)}, 'box 0 has class -1'),
    ({'classes': np.array([0, 0], np.int32)}, '1 boxes, but 2 classes'),
    ({'annotated_size': np.array([30, 20])}, r'size of its boxes is 30×20.*EXIF'),
    ({'masks': np.ones((1, 10, 15), np.uint8)}, r'masks is 10×15 .*its own is 20×30'),
    ({'depth': np.zeros((20, 20), np.float32)}, 'depth is 20×20'),
    ({'depth': np.full((20, 30), np.nan, np.float32)}, 'depth has values that are'),
    ({'depth': np.full((20, 30), -1, np.float32)}, 'depth has values that are'),
    ({'segmentation': np.full((20, 30), 2, np.uint8)}, 'class 2 on 600 pixels'),
    ({'segmentation': np.zeros((30, 20), np.uint8)}, r'segmentation is 30×20.*EXIF'),
  ],
)
def test_targets_that_do_not_fit_are_named(wrong, message):
  with pytest.raises(DecodeError, match=message) as error:
    targets.check(_example(**wrong), ANNOTATIONS)
  assert '\n' not in str(error.value)


@pytest.fixture
def voc(tmp_path):
  """A function of the first image's classes and orientation: two images."""

  def make(classes, orientation=1):
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
      (tmp_path / folder).mkdir(parents=True)
    image, exif = Image.fromarray(np.zeros((20, 30, 3), np.uint8)), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'JPEGImages' / '1.jpg', exif=exif)
    image.save(tmp_path / 'JPEGImages' / '2.jpg')
    for name, mask in (('1', classes), ('2', np.full((20, 30), 20, np.uint8))):
      cv2.imwrite(str(tmp_path / 'SegmentationClass' / f'{name}.png'), mask)
    # A list as an editor of another system writes it.
    names = '\ufeff1\r\n2.jpg  \r\n'.encode()
    (tmp_path / 'ImageSets' / 'Segmentation' / 'train.txt').write_bytes(names)
    return sources.create(f'voc:{tmp_path}', 'train')

  return make


@pytest.mark.parametrize(
  ('classes', 'orientation', 'cause'),
  [
    (np.full((20, 30), 21, np.uint8), 1, 'class 21 on 600 pixels; classes are 0 to 20'),
    (np.zeros((10, 15), np.uint8), 1, 'segmentation is 10×15'),
    (np.zeros((20, 30), np.uint8), 6, 'its own is 30×20, turned, as if its EXIF'),
    (np.zeros((20, 30, 3), np.uint8), 1, 'a PNG of 20×30 pixels of mode RGB'),
    (np.zeros((20, 30), np.uint16), 1, 'use gray of 8 bits'),
  ],
)
def test_example_with_a_wrong_mask_is_bad(voc, classes, orientation, cause):
  source = voc(classes, orientation)
  example, bad = reading.first_decodable(source, [0, 1])
  assert list(bad) == [0]
  assert cause in bad[0]
  assert np.all(example['segmentation'] == 20)
  with pytest.raises(InputError, match=r'1.jpg among them: .*check the data set'):
    reading.first_decodable(source, [0])
