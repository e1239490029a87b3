"""Image and classes move together."""

import numpy as np
import pytest

from sslhsic.data.annotations import VOID
from sslhsic.tasks.segmentation import examples

FILL = (1, 2, 3)


def _numbered(height, width):
  """An image whose first two channels say its row and column; classes are rows."""
  rows, columns = np.indices((height, width))
  image = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
  return {'image': image, 'segmentation': rows.astype(np.uint8)}


@pytest.mark.parametrize('size', [20, 90])
def test_classes_follow_the_image_through_scale_flip_and_crop(size):
  make = examples.TrainingExample(size=size, scales=(0.5, 2.0), fill=FILL)
  arrays = [make(np.random.default_rng(seed), _numbered(40, 30)) for seed in range(20)]
  assert {x['image'].shape for x in arrays} == {(size, size, 3)}
  flips = set()
  for x in arrays:
    inside = x['segmentation'] != VOID
    rows, columns = x['image'][..., 0].astype(int), x['image'][..., 1].astype(int)
    # Bicubic colours overshoot at the border; nearest neighbours are a pixel off.
    assert np.abs(rows - x['segmentation'])[inside].max() <= 2
    assert (x['image'][~inside] == FILL).all()
    middle = columns[size // 2][inside[size // 2]]
    flips.add(np.sign(int(middle[-1]) - int(middle[0])))
  assert flips == {-1, 1}
  if size == 90:  # Twice 40 rows: all of the image is there, in the middle.
    tops = [np.flatnonzero((x['segmentation'] != VOID).any(axis=1)) for x in arrays]
    assert all(abs(rows[0] - (89 - rows[-1])) <= 1 for rows in tops)
    assert 18 <= min(map(len, tops)) < 35
    assert 60 < max(map(len, tops)) <= 80


def test_centre_is_taken_at_its_own_scale():
  make = examples.TestExample(size=20, fill=FILL)
  arrays = make(np.random.default_rng(0), _numbered(40, 10))
  np.testing.assert_array_equal(
    arrays['image'][:, 5:15], _numbered(40, 10)['image'][10:30]
  )
  np.testing.assert_array_equal(arrays['segmentation'][:, 5], np.arange(10, 30))
  assert (arrays['segmentation'][:, :5] == VOID).all()
