"""Image, boxes and masks move together."""

import numpy as np
import pytest

from sslhsic.tasks.detection import examples


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
    'shorter': (100, 100, 1),
    'longer': (30, 50, 1),
    'max_objects': 4,
    'mask_size': 8,
    'flip': True,
  }
  return examples.DetectionExample(**settings | changes)


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


def test_upright_images_have_a_canvas_of_their_own():
  make = _make(padded=(30, 50), longer=(50, 50, 1))
  wide = _objects()
  turned = {
    **wide,
    'image': wide['image'].swapaxes(0, 1),
    'masks': wide['masks'].swapaxes(1, 2),
    'boxes': wide['boxes'][:, [1, 0, 3, 2]],
  }
  shapes = [make(np.random.default_rng(0), x)['image'].shape for x in (wide, turned)]
  assert shapes == [(30, 50, 3), (50, 30, 3)]
  assert examples.is_upright(np.array([[40, 60], [60, 40], [9, 9]])).tolist() == [
    False,
    True,
    False,
  ]
  with pytest.raises(ValueError, match=r'config\.data\.padded is \(50, 30\)'):
    _make(padded=(50, 30))


def test_sides_are_drawn_in_steps():
  make = _make(longer=(30, 45, 5))
  widths = {
    int(make(np.random.default_rng(seed), _objects())['size'][1]) for seed in range(60)
  }
  assert widths == {30, 35, 40, 45}


def test_shorter_side_bounds_the_scale_and_objects_may_be_too_many():
  make = _make(shorter=(20, 20, 1), longer=(1000, 1000, 1), max_objects=1, mask_size=0)
  x = make(np.random.default_rng(0), _objects())
  np.testing.assert_array_equal(x['size'], [20, 30])
  assert x['classes'].tolist() == [1]
  assert 'masks' not in x
  empty = {name: value[:0] for name, value in _objects().items()}
  x = make(np.random.default_rng(0), empty | {'image': _objects()['image']})
  assert x['classes'].tolist() == [-1]
