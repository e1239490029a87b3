"""Examples of segmentation: image and classes, moved together.

Both classes are a `reading.Make`; worker processes import them, without JAX. What one
resize does to the image, resizing does to its classes: half-pixel centres, and nearest
neighbours.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sslhsic.data import images
from sslhsic.data.annotations import VOID


@dataclasses.dataclass(frozen=True)
class TrainingExample:
  """Image and classes, scaled, mirrored and cropped at random.

  Makes 'image' [S, S, C] and 'segmentation' [S, S], uint8, void outside the image.

  Attributes:
    size: S.
    scales: smallest and largest factor of a size, which is uniform between them.
    fill: colour outside the image, one uint8 value a channel.
  """

  size: int
  scales: tuple[float, float]
  fill: tuple[int, ...]

  def __call__(self, rng: np.random.Generator, example: dict) -> dict[str, np.ndarray]:
    """The arrays of an example."""
    image, classes = example['image'], example['segmentation']
    scale = rng.uniform(*self.scales)
    height, width = (max(round(scale * side), 1) for side in classes.shape)
    image = images.resize_to(image, height, width)
    classes = images.nearest(classes, height, width)
    if rng.random() < 0.5:
      image, classes = image[:, ::-1], classes[:, ::-1]
    # A window inside a larger image; a smaller image is taken whole, then padded.
    top, left = (int(rng.integers(max(x - self.size, 0) + 1)) for x in (height, width))
    window = lambda x: x[top : top + self.size, left : left + self.size]
    image, classes = _pad(window(image), window(classes), self.size, self.fill)
    return {'image': image, 'segmentation': classes}


@dataclasses.dataclass(frozen=True)
class TestExample:
  """The centre of image and classes, at their own scale.

  Makes the arrays of `TrainingExample`; a smaller image lies in the middle.

  Attributes:
    size: S.
    fill: colour outside the image, one uint8 value a channel.
  """

  size: int
  fill: tuple[int, ...]

  def __call__(self, rng: np.random.Generator, example: dict) -> dict[str, np.ndarray]:
    """The arrays of an example."""
    del rng
    image, classes = (
      images.central_window(example[name], self.size, self.size)
      for name in ('image', 'segmentation')
    )
    image, classes = _pad(image, classes, self.size, self.fill)
    return {'image': image, 'segmentation': classes}


def _pad(
  image: np.ndarray, classes: np.ndarray, size: int, fill: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
  """Both in the middle of [size, size], colour `fill` and void around them."""
  height, width = classes.shape
  top, left = (size - height) // 2, (size - width) // 2
  inside = np.s_[top : top + height, left : left + width]
  padded = np.empty((size, size, image.shape[2]), np.uint8)
  padded[:] = fill
  padded[inside] = image
  padded_classes = np.full((size, size), VOID, np.uint8)
  padded_classes[inside] = classes
  return padded, padded_classes
