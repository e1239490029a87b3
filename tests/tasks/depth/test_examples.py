"""Image and depths move together."""

import numpy as np

from sslhsic.tasks.depth import examples


def _numbered(height, width):
  """An image whose first two channels say its row and column; depths are columns."""
  rows, columns = np.indices((height, width))
  image = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
  return {'image': image, 'depth': (columns + 1).astype(np.float32)}


def test_depths_follow_the_image_and_are_not_scaled():
  make = examples.DepthExample(resized=(20, 30), crop=(10, 12), flip=True)
  arrays = [make(np.random.default_rng(seed), _numbered(40, 60)) for seed in range(8)]
  signs = set()
  for x in arrays:
    assert (x['image'].shape, x['depth'].shape) == ((10, 12, 3), (10, 12))
    assert x['depth'].dtype == np.float32
    assert np.abs(x['image'][..., 1] + 1.0 - x['depth']).max() <= 1
    signs.add(float(np.sign(x['depth'][0, -1] - x['depth'][0, 0])))
    # Columns 9 to 20 of 30, which are columns 18 to 41 of 60.
    assert 18 <= x['depth'].min() - 1 < x['depth'].max() - 1 <= 41
  assert signs == {-1, 1}
  still = examples.DepthExample(resized=(), crop=(40, 60), flip=False)
  still = still(np.random.default_rng(0), _numbered(40, 60))
  np.testing.assert_array_equal(still['depth'], _numbered(40, 60)['depth'])
