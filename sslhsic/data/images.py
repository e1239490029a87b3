"""Images on the host, by OpenCV: decode, crop, resize; [H, W, C] uint8.

Resizing is OpenCV's bicubic interpolation: Keys' kernel with a = -0.75, half-pixel
centres, the border repeated, no smoothing before an image is made smaller.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image

from sslhsic.data.errors import DecodeError

# The loader runs images in parallel; OpenCV's own threads would fight with it.
cv2.setNumThreads(0)


def decode(image: bytes | np.ndarray) -> np.ndarray:
  """The pixels [H, W, 3] of a JPEG, PNG or WebP; an array is taken as it is.

  Gray and CMYK become RGB, 16 bits become 8, what is transparent lies on white. A JPEG
  is turned as its EXIF orientation says.

  Raises:
    DecodeError: it is no image, or a part of it is missing. Damage inside compressed
      data that the decoder can go on after is not noticed.
  """
  if isinstance(image, np.ndarray):
    return image
  # Decoding at half the size, where crops allow it, is faster, but as interpolation
  # does not smooth, crops then differ by 12 of 255 on average in images with texture.
  if image.startswith(b'\xff\xd8'):
    return _imdecode(image, cv2.IMREAD_COLOR_RGB)
  pixels = _imdecode(image, cv2.IMREAD_UNCHANGED)
  if pixels.dtype == np.uint16:
    pixels = (pixels >> 8).astype(np.uint8)
  if pixels.ndim == 2:
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
  if pixels.shape[2] == 4:
    return _on_white(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
  return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def decode_gray(image: bytes) -> np.ndarray:
  """The pixels [H, W, 1] of a JPEG, PNG or WebP; RGB becomes its luma.

  Raises:
    DecodeError: as by `decode`.
  """
  return _imdecode(image, cv2.IMREAD_GRAYSCALE)[..., None]


def decode_classes(segmentation: bytes | np.ndarray) -> np.ndarray:
  """The class of each pixel, uint8 [H, W], of a PNG; an array is taken as it is.

  The PNG is gray, or has a palette as those of PASCAL VOC, whose indices are the
  classes: OpenCV would give their colours.

  Raises:
    DecodeError: it is no PNG, or one of colours.
  """
  if isinstance(segmentation, np.ndarray):
    return segmentation
  try:
    picture = Image.open(io.BytesIO(segmentation))
    classes = np.array(picture)
  except (OSError, SyntaxError, ValueError) as error:  # All that Pillow raises.
    raise DecodeError(str(error)) from error
  if picture.mode not in ('L', 'P'):
    raise DecodeError(f'a segmentation of mode {picture.mode}; use gray or a palette')
  return classes


def size(image: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, from its header: it is not decoded.

  Raises:
    DecodeError: it is no image.
  """
  try:
    with Image.open(io.BytesIO(image)) as opened:
      return opened.height, opened.width
  except (OSError, SyntaxError, ValueError) as error:
    raise DecodeError(f'{len(image)} bytes are no JPEG, PNG or WebP') from error


def _imdecode(image: bytes, flags: int) -> np.ndarray:
  try:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
  except cv2.error as error:  # Nothing at all, or too many pixels.
    raise DecodeError(str(error)) from error
  if pixels is None:
    raise DecodeError(f'{len(image)} bytes are not a whole JPEG, PNG or WebP')
  return pixels


def _on_white(rgba: np.ndarray) -> np.ndarray:
  opacity = rgba[..., 3:].astype(np.float32) / 255
  return np.round(255 + opacity * (rgba[..., :3] - 255.0)).astype(np.uint8)


def random_resized_crop(
  rng: np.random.Generator,
  image: np.ndarray,
  size: int,
  area: tuple[float, float] = (0.08, 1.0),
) -> np.ndarray:
  """The random crop of BYOL, resized (bicubic) to [size, size, C].

  Log of the aspect ratio ~ U(log 3/4, log 4/3); one try, each side clipped to the
  image; position uniform.

  Args:
    rng: draws the crop.
    image: [H, W, C].
    size: pixels.
    area: the area is uniform between these shares of the image.
  """
  height, width, _ = image.shape
  area = rng.uniform(*area) * height * width
  aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
  crop_width = min(max(round(math.sqrt(area * aspect)), 1), width)
  crop_height = min(max(round(math.sqrt(area / aspect)), 1), height)
  top = rng.integers(height - crop_height + 1)
  left = rng.integers(width - crop_width + 1)
  return resize(image[top : top + crop_height, left : left + crop_width], size)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
  """The central square of side 224/256·min(H, W), resized to [size, size, C]."""
  side = max(round(224 / 256 * min(image.shape[:2])), 1)
  return resize(central_window(image, side, side), size)


def shorter_side(image: np.ndarray, size: int) -> np.ndarray:
  """The central square of the image resized to a shorter side of `size`."""
  height, width, _ = image.shape
  scale = size / min(height, width)
  resized = resize_to(image, round(scale * height), round(scale * width))
  return central_window(resized, size, size)


def central_window(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """The central [height, width] of [H, W, ...], or all of it along a shorter side."""
  top, left = max(x.shape[0] - height, 0) // 2, max(x.shape[1] - width, 0) // 2
  return x[top : top + height, left : left + width]


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Bicubic, to [size, size, C]."""
  return resize_to(image, size, size)


def resize_to(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Bicubic, to [height, width, C]."""
  resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
  return resized.reshape(height, width, image.shape[2])  # A channel of one is dropped.


def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """[H, W] of any type to [height, width], each pixel that of its nearest neighbour."""
  return cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
