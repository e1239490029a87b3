"""Crops on the host, with OpenCV: [H, W, C] uint8 in, [size, size, C] uint8 out."""

import math

import cv2
import numpy as np

# The loader runs images in parallel; OpenCV's own threads would fight with it.
cv2.setNumThreads(0)


def random_resized_crop(
  rng: np.random.Generator, image: np.ndarray, size: int
) -> np.ndarray:
  """The random crop of BYOL, resized (bicubic) to [size, size, C].

  Area ~ U(0.08, 1) of the image, log of the aspect ratio ~ U(log 3/4, log 4/3); one
  try, each side clipped to the image; position uniform.
  """
  height, width, _ = image.shape
  area = rng.uniform(0.08, 1) * height * width
  aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
  crop_width = min(round(math.sqrt(area * aspect)), width)
  crop_height = min(round(math.sqrt(area / aspect)), height)
  top = rng.integers(height - crop_height + 1)
  left = rng.integers(width - crop_width + 1)
  return resize(image[top : top + crop_height, left : left + crop_width], size)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
  """The central square of side 224/256·min(H, W), resized to [size, size, C]."""
  height, width, _ = image.shape
  side = max(round(224 / 256 * min(height, width)), 1)
  top, left = (height - side) // 2, (width - side) // 2
  return resize(image[top : top + side, left : left + side], size)


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Bicubic, to [size, size, C]."""
  resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
  return resized.reshape(size, size, image.shape[-1])  # OpenCV drops a channel of one.
