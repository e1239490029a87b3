"""Crops: their law, and their pixels against slices."""

import math

import numpy as np
import pytest

from sslhsic.data import images


def _coordinates(height, width):
  """An image whose pixel (i, j) is (i, j)."""
  return np.stack(np.indices((height, width)), axis=-1).astype(np.uint8)


def test_random_crops_follow_the_stated_law(monkeypatch):
  monkeypatch.setattr(images, 'resize', lambda image, size: image)
  rng = np.random.default_rng(0)
  crops = [
    images.random_resized_crop(rng, _coordinates(200, 200), 32) for _ in range(2000)
  ]
  areas = np.array([crop.shape[0] * crop.shape[1] for crop in crops]) / 200**2
  aspects = np.array([crop.shape[1] / crop.shape[0] for crop in crops])
  assert 0.07 < areas.min() < 0.1
  assert areas.max() > 0.9
  small = aspects[areas < 0.6]  # Not clipped by the image.
  log_aspect = np.log(small)
  assert np.all(np.abs(log_aspect) < math.log(4 / 3) + 0.05)
  np.testing.assert_allclose(log_aspect.mean(), 0, atol=0.02)
  # The standard deviation of a uniform distribution is its width / √12.
  np.testing.assert_allclose(log_aspect.std(), 2 * math.log(4 / 3) / 12**0.5, rtol=0.06)
  # Area is uniform as far as no side is clipped.
  np.testing.assert_allclose((areas < 0.31).mean(), (0.31 - 0.08) / 0.92, atol=0.04)


def test_random_crops_reach_every_corner(monkeypatch):
  monkeypatch.setattr(images, 'resize', lambda image, size: image)
  rng = np.random.default_rng(0)
  corners = np.array(
    [
      (*crop[0, 0], *crop[-1, -1])
      for crop in (
        images.random_resized_crop(rng, _coordinates(20, 30), 8) for _ in range(500)
      )
    ]
  )
  np.testing.assert_array_equal(corners.min(axis=0)[:2], [0, 0])
  np.testing.assert_array_equal(corners.max(axis=0)[2:], [19, 29])


@pytest.mark.parametrize('shape', [(32, 48, 3), (40, 40, 1), (7, 3, 3), (1, 1, 1)])
def test_crops_have_the_wanted_shape_and_type(shape):
  image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  for crop in (
    images.random_resized_crop(np.random.default_rng(1), image, 16),
    images.centre_crop(image, 16),
  ):
    assert crop.shape == (16, 16, shape[2])
    assert crop.dtype == np.uint8


def test_centre_crop_is_the_central_square():
  image = _coordinates(64, 128)
  crop = images.centre_crop(image, 56)  # 224/256 · 64: no resizing.
  np.testing.assert_array_equal(crop, image[4:60, 36:92])
