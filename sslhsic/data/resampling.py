"""Resizing of images by cubic interpolation, with and without smoothing.

Both methods use Keys' kernel with a = −0.5 (Keys 1981, "Cubic convolution interpolation
for digital image processing") at half-pixel centres. Pixels outside the image do not
exist: their weights are dropped, and the others scaled to sum to one.

- 'bicubic' reads four pixels in each direction however much smaller the image becomes,
  as the published pre-training does (TensorFlow's `tf.image.resize`): fine texture
  turns into noise.
- 'bicubic_antialias' widens the kernel by the reduction, as Pillow, torchvision, timm
  and Hugging Face do by default.

Smoothing in evaluations was better for encoders that were trained on either.
"""

import functools

import cv2
import numpy as np
from PIL import Image
from scipy import sparse

INTERPOLATIONS = ('bicubic', 'bicubic_antialias')


def check(interpolation: str, field: str) -> None:
  """Checks the name of a method.

  Args:
    interpolation: the name.
    field: the configuration field that it is the value of, for the message.

  Raises:
    ValueError: there is no such method.
  """
  if interpolation not in INTERPOLATIONS:
    raise ValueError(
      f'{field} is {interpolation!r}; use one of {", ".join(INTERPOLATIONS)}'
    )


def resize(
  image: np.ndarray, height: int, width: int, interpolation: str = 'bicubic'
) -> np.ndarray:
  """Resizes an image.

  Args:
    image: [H, W, C], uint8.
    height, width: of the result, in pixels.
    interpolation: one of `INTERPOLATIONS`.

  Returns:
    [height, width, C], uint8, rounded and clipped to 0 … 255.

  Raises:
    ValueError: there is no such method.
  """
  check(interpolation, 'interpolation')
  if image.shape[:2] == (height, width):
    return image
  if interpolation == 'bicubic_antialias':
    return _antialiased(image, height, width)
  return _four_taps(image, height, width)


def _four_taps(image: np.ndarray, height: int, width: int) -> np.ndarray:
  old_height, old_width, channels = image.shape
  # Vertically first: [height, H] @ [H, W·C].
  rows = image.reshape(old_height, old_width * channels).astype(np.float32)
  x = _weights(old_height, height) @ rows
  # Columns become rows, so that each direction is one sparse product.
  x = _transposed(x.reshape(height, old_width, channels))
  x = _weights(old_width, width) @ x.reshape(old_width, height * channels)
  x = _transposed(x.reshape(width, height, channels))
  return np.clip(np.rint(x, out=x), 0, 255, out=x).astype(np.uint8)


def _transposed(x: np.ndarray) -> np.ndarray:
  """[H, W, C] -> [W, H, C]; several times as fast by OpenCV, which takes C ≤ 4."""
  if x.shape[2] > 4:
    return np.ascontiguousarray(x.swapaxes(0, 1))
  return cv2.transpose(x).reshape(x.shape[1], x.shape[0], x.shape[2])


# Random crops have any size: the latest of them are kept, at 4 kB or so each.
@functools.lru_cache(4096)
def _weights(old: int, new: int) -> sparse.csr_matrix:
  """Weight of each old pixel in each new one along a direction, [new, old]."""
  # Old coordinate of new pixel i: (i + ½)·old/new − ½.
  centres = (np.arange(new) + 0.5) * (old / new) - 0.5
  # [new, 4]: the two nearest old pixels on either side of each centre.
  places = np.floor(centres).astype(int)[:, None] + np.arange(-1, 3)
  weights = _keys(np.abs(centres[:, None] - places))
  weights = np.where((places >= 0) & (places < old), weights, 0.0)
  weights /= weights.sum(axis=1, keepdims=True)
  # Taps outside the image have weight 0, and need only a valid index.
  indices = np.clip(places, 0, old - 1).ravel()
  ends = np.arange(0, 4 * new + 1, 4)
  return sparse.csr_matrix(
    (weights.astype(np.float32).ravel(), indices, ends), shape=(new, old)
  )


def _keys(x: np.ndarray, a: float = -0.5) -> np.ndarray:
  """Keys' cubic kernel at distances x in [0, 2]."""
  # For x ≤ 1: (a + 2)x³ − (a + 3)x² + 1; for 1 < x ≤ 2: ax³ − 5ax² + 8ax − 4a.
  near = ((a + 2) * x - (a + 3)) * x * x + 1
  far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
  return np.where(x <= 1, near, far)


def _antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
  size = width, height
  # Pillow takes gray and RGB as they are; of other images, one channel at a time.
  if image.shape[2] in (1, 3):
    squeezed = image[..., 0] if image.shape[2] == 1 else image
    resized = Image.fromarray(squeezed).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(height, width, image.shape[2])
  channels = [
    Image.fromarray(image[..., channel]).resize(size, Image.Resampling.BICUBIC)
    for channel in range(image.shape[2])
  ]
  return np.stack([np.asarray(x) for x in channels], axis=-1)
