"""Image and targets move together."""

import numpy as np
import pytest

from sslhsic.data import dense, images

FILL = (1, 2, 3)


def _example(height, width):
  """An image whose first two channels say its row and column, as do its targets."""
  rows, columns = np.indices((height, width))
  image = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
  return {
    'image': image,
    'segmentation': rows.astype(np.uint8),
    'depth': (columns + 1).astype(np.float32),
  }


@pytest.mark.parametrize('size', [20, 90])
def test_classes_follow_the_image_through_scale_flip_and_crop(size):
  make = dense.SegmentationTraining(size=size, scales=(0.5, 2.0), fill=FILL)
  arrays = [make(np.random.default_rng(seed), _example(40, 30)) for seed in range(20)]
  assert {x['image'].shape for x in arrays} == {(size, size, 3)}
  flips = set()
  for x in arrays:
    inside = x['segmentation'] != dense.VOID
    rows, columns = x['image'][..., 0].astype(int), x['image'][..., 1].astype(int)
    # Bicubic colours overshoot at the border; nearest neighbours are a pixel off.
    assert np.abs(rows - x['segmentation'])[inside].max() <= 2
    assert (x['image'][~inside] == FILL).all()
    middle = columns[size // 2][inside[size // 2]]
    flips.add(np.sign(int(middle[-1]) - int(middle[0])))
  assert flips == {-1, 1}
  if size == 90:  # Twice 40 rows: all of the image is there, in the middle.
    tops = [
      np.flatnonzero((x['segmentation'] != dense.VOID).any(axis=1)) for x in arrays
    ]
    assert all(abs(rows[0] - (89 - rows[-1])) <= 1 for rows in tops)
    assert 18 <= min(map(len, tops)) < 35
    assert 60 < max(map(len, tops)) <= 80


def test_centre_is_taken_at_its_own_scale():
  make = dense.SegmentationTest(size=20, fill=FILL)
  arrays = make(np.random.default_rng(0), _example(40, 10))
  np.testing.assert_array_equal(
    arrays['image'][:, 5:15], _example(40, 10)['image'][10:30]
  )
  np.testing.assert_array_equal(arrays['segmentation'][:, 5], np.arange(10, 30))
  assert (arrays['segmentation'][:, :5] == dense.VOID).all()


def test_depths_follow_the_image_and_are_not_scaled():
  make = dense.Depth(resized=(20, 30), crop=(10, 12), flip=True)
  arrays = [make(np.random.default_rng(seed), _example(40, 60)) for seed in range(8)]
  signs = set()
  for x in arrays:
    assert (x['image'].shape, x['depth'].shape) == ((10, 12, 3), (10, 12))
    assert x['depth'].dtype == np.float32
    assert np.abs(x['image'][..., 1] + 1.0 - x['depth']).max() <= 1
    signs.add(float(np.sign(x['depth'][0, -1] - x['depth'][0, 0])))
    # Columns 9 to 20 of 30, which are columns 18 to 41 of 60.
    assert 18 <= x['depth'].min() - 1 < x['depth'].max() - 1 <= 41
  assert signs == {-1, 1}
  still = dense.Depth(resized=(), crop=(40, 60), flip=False)
  still = still(np.random.default_rng(0), _example(40, 60))
  np.testing.assert_array_equal(still['depth'], _example(40, 60)['depth'])


def _objects():
  """A black image with two bright boxes and their masks, one to be ignored."""
  image = np.zeros((40, 60, 3), np.uint8)
  masks = np.zeros((3, 40, 60), np.uint8)
  boxes = np.array([[10, 4, 30, 12], [40, 20, 60, 40], [0, 30, 10, 40]], np.float32)
  for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
    mask[y1:y2, x1:x2] = 1
  masks[1, 20:40, 50:60] = 0  # Its left half.
  image[(masks > 0).any(axis=0)] = 255
  return {
    'image': image,
    'boxes': boxes,
    'classes': np.array([3, 1, 2], np.int32),
    'ignore': np.array([True, False, False]),
    'masks': masks,
  }


def _make(**changes):
  settings = {
    'padded': (50, 50),
    'shorter': (100, 100),
    'longer': (30, 50),
    'max_objects': 4,
    'mask_size': 8,
    'flip': True,
  }
  return dense.Detection(**settings | changes)


def test_boxes_and_masks_follow_the_image():
  scales, flips = [], set()
  for seed in range(20):
    x = _make()(np.random.default_rng(seed), _objects())
    height, width = x['size'].astype(int)
    assert max(height, width) == width <= 50
    np.testing.assert_allclose(x['size'], x['scale'] * [40, 60], rtol=1e-6)
    assert not x['image'][height:].any()
    assert not x['image'][:, width:].any()
    scales.append(x['scale'][1])
    is_flipped = x['masks'][0, :, :4].max() == 0
    flips.add(is_flipped)
    # Those that are not ignored come first.
    assert x['classes'].tolist() == [1, 2, 3, -1]
    assert x['ignore'].tolist() == [False, False, True, False]
    assert not x['boxes'][3].any()
    left = np.round(x['boxes'][2]).astype(int)
    inside = x['image'][left[1] + 1 : left[3] - 1, left[0] + 1 : left[2] - 1]
    assert inside.size
    assert inside.min() > 200
    bright = x['image'][..., 0] > 128
    expected = np.sum(_objects()['masks']) * x['scale'].prod()
    assert bright.sum() == pytest.approx(expected, rel=0.2)
    mask = x['masks'][0][:, ::-1] if is_flipped else x['masks'][0]
    np.testing.assert_array_equal(mask[:, :3], 255)
    np.testing.assert_array_equal(mask[:, 5:], 0)
    np.testing.assert_array_equal(x['masks'][1], 255)
  assert flips == {False, True}
  assert 0.5 <= min(scales) < 0.6
  assert 0.75 < max(scales) <= 50 / 60 + 1e-6


def test_shorter_side_bounds_the_scale_and_objects_may_be_too_many():
  make = _make(shorter=(20, 20), longer=(1000, 1000), max_objects=1, mask_size=0)
  x = make(np.random.default_rng(0), _objects())
  np.testing.assert_array_equal(x['size'], [20, 30])
  assert x['classes'].tolist() == [1]
  assert 'masks' not in x
  empty = {name: value[:0] for name, value in _objects().items()}
  x = make(np.random.default_rng(0), empty | {'image': _objects()['image']})
  assert x['classes'].tolist() == [-1]


def test_nearest_is_that_of_half_pixel_centres():
  x = np.arange(6, dtype=np.float32)[None]
  np.testing.assert_array_equal(images.nearest(x, 1, 3), [[1, 3, 5]])
  np.testing.assert_array_equal(images.nearest(x, 1, 12), [np.repeat(x[0], 2)])
