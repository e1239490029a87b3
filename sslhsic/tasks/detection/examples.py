"""Examples of object detection: image and objects, moved together.

`DetectionExample` is a `reading.Make`; worker processes import it, without JAX.
"""

import dataclasses

import cv2
import numpy as np

from sslhsic.data import images


@dataclasses.dataclass(frozen=True)
class DetectionExample:
  """Image and objects, resized and padded, and mirrored if so set.

  The scale is the largest at which neither the shorter side of the image exceeds a
  number drawn from `shorter` nor the longer one a number drawn from `longer`.

  Makes 'image' [H, W, C] uint8, [W, H, C] of an upright image, whose content is at the
  top left; networks do not see the padding at its right and bottom;
  'size' [2] float32, height and width of the content; 'scale' [2] float32, what height
  and width were multiplied by; and of up to K objects, in pixels of the resized image,
  'boxes' [K, 4] float32 (x1, y1, x2, y2), 'classes' [K] int32 (-1: there is none),
  'ignore' [K] bool, and with masks 'masks' [K, G, G] uint8, each resampled in its box,
  0 to 255. If there are more than K, the first K that are not to be ignored come first.

  Attributes:
    padded: H and W, H ≤ W.
    shorter, longer: numbers to be drawn for either side: the smallest, the largest, and
      the step between them.
    max_objects: K.
    mask_size: G; 0 without masks.
    flip: whether to mirror half of the examples.
  """

  padded: tuple[int, int]
  shorter: tuple[int, int, int]
  longer: tuple[int, int, int]
  max_objects: int
  mask_size: int
  flip: bool

  def __post_init__(self):
    height, width = self.padded
    if height > width:
      raise ValueError(
        f'config.data.padded is {self.padded}; give height and width for images that '
        'are at least as wide as high; upright ones get a width and a height'
      )

  def __call__(self, rng: np.random.Generator, example: dict) -> dict[str, np.ndarray]:
    """The arrays of an example."""
    image = example['image']
    original = np.array(image.shape[:2])
    canvas = self.padded[::-1] if is_upright(original) else self.padded
    size = np.minimum(self._size(rng, original), canvas)
    image = images.resize_to(image, *size)
    # One factor for each axis: rounding and the canvas act on them separately.
    scale = (size / original).astype(np.float32)
    boxes = (example['boxes'] * scale[[1, 0, 1, 0]]).astype(np.float32)
    is_flipped = self.flip and rng.random() < 0.5
    if is_flipped:
      image = image[:, ::-1]
      # Mirrored, left and right change places: x1' = width − x2.
      boxes = np.stack(
        [size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], axis=1
      ).astype(np.float32)
    padded = np.zeros((*canvas, image.shape[2]), np.uint8)
    padded[: size[0], : size[1]] = image
    arrays = {'image': padded, 'size': size.astype(np.float32), 'scale': scale}
    return arrays | self._objects(example, boxes, is_flipped)

  def _size(self, rng: np.random.Generator, original: np.ndarray) -> np.ndarray:
    """Height and width to resize to."""
    shorter, longer = (
      low + step * rng.integers((high - low) // step + 1)
      for low, high, step in (self.shorter, self.longer)
    )
    scale = min(shorter / original.min(), longer / original.max())
    return np.maximum(np.round(scale * original), 1).astype(int)

  def _objects(self, example: dict, boxes: np.ndarray, is_flipped: bool) -> dict:
    # Stable: objects to be ignored go last, the others keep their order.
    order = np.argsort(example['ignore'], kind='stable')[: self.max_objects]
    count = len(order)
    arrays = {
      'boxes': np.zeros((self.max_objects, 4), np.float32),
      'classes': np.full(self.max_objects, -1, np.int32),
      'ignore': np.zeros(self.max_objects, bool),
    }
    arrays['boxes'][:count] = boxes[order]
    arrays['classes'][:count] = example['classes'][order]
    arrays['ignore'][:count] = example['ignore'][order]
    if self.mask_size:
      shape = (self.max_objects, self.mask_size, self.mask_size)
      masks = arrays['masks'] = np.zeros(shape, np.uint8)
      for place, row in enumerate(order):
        mask = _in_box(example['masks'][row], example['boxes'][row], self.mask_size)
        masks[place] = mask[:, ::-1] if is_flipped else mask
    return arrays


def is_upright(sizes: np.ndarray) -> np.ndarray:
  """Whether images of sizes [..., 2], height and width, are higher than wide, [...]."""
  return sizes[..., 0] > sizes[..., 1]


def _in_box(mask: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """A mask [H, W] of 0 and 1 inside a box, resampled (bilinear) to [size, size]."""
  x1, y1, x2, y2 = box
  width, height = (x2 - x1) / size, (y2 - y1) / size
  # Column i lies at x = x1 + (i + ½)·width − ½ in the image: half-pixel centres.
  to_image = np.array(
    [[width, 0, x1 + width / 2 - 0.5], [0, height, y1 + height / 2 - 0.5]]
  )
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  return cv2.warpAffine(mask * np.uint8(255), to_image, (size, size), flags=flags)
