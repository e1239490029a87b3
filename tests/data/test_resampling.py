"""Resizing: TensorFlow's values, Pillow's, and what cubic interpolation promises."""

import numpy as np
import pytest
from PIL import Image

from sslhsic.data import resampling


def _image(height, width, channels=3, seed=0):
  shape = height, width, channels
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _direct(image, height, width):
  """Keys' interpolation at every pixel, from its definition."""

  def kernel(x):
    x = abs(x)
    if x <= 1:
      return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

  def weights(old, new):
    matrix = np.zeros((new, old))
    for i in range(new):
      centre = (i + 0.5) * old / new - 0.5
      for j in range(old):
        matrix[i, j] = kernel(j - centre)
    return matrix / matrix.sum(axis=1, keepdims=True)

  rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
  return np.einsum('ih,jw,hwc->ijc', rows, columns, image.astype(np.float64))


@pytest.mark.parametrize('size', [(5, 9), (16, 4), (37, 41), (1, 1)])
@pytest.mark.parametrize('channels', [1, 3, 4, 6])
def test_bicubic_is_the_definition(size, channels):
  image = _image(20, 13, channels)
  resized = resampling.resize(image, *size)
  assert resized.dtype == np.uint8
  assert resized.shape == (*size, channels)
  expected = np.clip(_direct(image, *size), 0, 255)
  assert np.abs(resized - expected).max() <= 0.5 + 1e-3


def test_without_reduction_both_are_pillow():
  """Larger images need no smoothing, and Pillow's kernel is the same."""
  image = _image(12, 15) // 3 + 80  # Pillow clips between the directions.
  pillow = np.asarray(Image.fromarray(image).resize((40, 31), Image.Resampling.BICUBIC))
  for interpolation in resampling.INTERPOLATIONS:
    resized = resampling.resize(image, 31, 40, interpolation)
    # Pillow rounds its weights, and the values between the directions.
    assert np.abs(resized.astype(int) - pillow).max() <= 1


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_antialias_is_pillow_channel_by_channel(channels):
  image = _image(40, 51, channels)
  resized = resampling.resize(image, 11, 13, 'bicubic_antialias')
  for channel in range(channels):
    pillow = Image.fromarray(image[..., channel])
    expected = np.asarray(pillow.resize((13, 11), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resized[..., channel], expected)


def test_only_antialias_smooths_what_becomes_smaller():
  noise = _image(256, 256, 1)
  spread = {
    name: resampling.resize(noise, 16, 16, name).std()
    for name in resampling.INTERPOLATIONS
  }
  assert spread['bicubic'] > 40 > 10 > spread['bicubic_antialias']


def test_a_constant_image_stays_and_the_same_size_is_the_image():
  image = np.full((9, 7, 3), 201, np.uint8)
  assert (resampling.resize(image, 5, 20) == 201).all()
  assert resampling.resize(image, 9, 7) is image


def test_unknown_method():
  with pytest.raises(ValueError, match="interpolation is 'cubic'; use one of bicubic"):
    resampling.resize(_image(4, 4), 2, 2, 'cubic')
