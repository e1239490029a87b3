"""Bilinear interpolation of feature maps against SciPy and OpenCV."""

import cv2
import jax.numpy as jnp
import numpy as np
from scipy import interpolate

from sslhsic.tasks import upsampling


def test_values_of_cells_are_at_multiples_of_the_stride():
  cells = np.random.default_rng(0).normal(size=(1, 4, 3, 1)).astype(np.float32)
  pixels = upsampling.bilinear(jnp.asarray(cells), 4, (15, 11))[0, ..., 0]
  grid = interpolate.RegularGridInterpolator(
    (4 * np.arange(4), 4 * np.arange(3)), cells[0, ..., 0]
  )
  rows, columns = np.meshgrid(
    np.minimum(np.arange(15), 12), np.minimum(np.arange(11), 8), indexing='ij'
  )
  np.testing.assert_allclose(pixels, grid((rows, columns)), atol=1e-6)


def test_patches_are_stretched_as_an_image():
  """OpenCV puts the centre of a pixel in its middle, like a patch's."""
  cells = np.random.default_rng(0).normal(size=(1, 4, 3, 2)).astype(np.float32)
  pixels = upsampling.bilinear(jnp.asarray(cells), 4, (16, 12), offset=1.5)
  expected = cv2.resize(cells[0], (12, 16), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(pixels[0], expected, atol=1e-5)


def test_cells_beyond_the_image_are_not_seen():
  cells = jnp.ones((1, 4, 4, 2)).at[:, 3:].set(jnp.nan).at[:, :, 3:].set(jnp.nan)
  # Cells 0 to 2 lie at pixels 0, 4 and 8.
  pixels = upsampling.bilinear(cells[:, :3, :3], 4, (9, 9))
  np.testing.assert_allclose(pixels, 1)
