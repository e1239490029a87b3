"""Examples of depth estimation: image and depths, moved together.

`DepthExample` is a `reading.Make`; worker processes import it, without JAX. What one
resize does to the image, resizing does to its depths: half-pixel centres, and nearest
neighbours.
"""

import dataclasses

import numpy as np

from sslhsic.data import images


@dataclasses.dataclass(frozen=True)
class DepthExample:
  """Image and depths, resized, cropped at the centre, and mirrored if so set.

  Makes 'image' [H, W, C] uint8 and 'depth' [H, W] float32. Depths are distances to the
  camera, so resizing scales none of them.

  Attributes:
    resized: height and width to resize to; empty to leave them.
    crop: H and W of the centre.
    flip: whether to mirror half of the examples.
  """

  resized: tuple[int, ...]
  crop: tuple[int, int]
  flip: bool

  def __call__(self, rng: np.random.Generator, example: dict) -> dict[str, np.ndarray]:
    """The arrays of an example."""
    image, depth = example['image'], example['depth']
    if self.resized:
      image = images.resize_to(image, *self.resized)
      # Interpolation across an edge would invent depths, and mix in 0, the unknown.
      depth = images.nearest(depth, *self.resized)
    image, depth = (images.central_window(x, *self.crop) for x in (image, depth))
    if self.flip and rng.random() < 0.5:
      image, depth = image[:, ::-1], depth[:, ::-1]
    return {'image': image, 'depth': depth}
