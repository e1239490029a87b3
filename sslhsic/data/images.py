"""Images on the host: decoded by OpenCV, cropped, resized; [H, W, C] uint8.

Resizing is cubic, with or without smoothing; see `resampling`.
"""

import io
import math
import multiprocessing

import cv2
import numpy as np
from absl import logging
from PIL import Image

from sslhsic.data import resampling
from sslhsic.data.errors import DecodeError, one_line

# The loader runs images in parallel; OpenCV's own threads would fight with it.
cv2.setNumThreads(0)


# As many as Pillow decodes without an error.
MAX_PIXELS = 178_956_970

Image.init()
# Suffixes by format, as Pillow calls it.
_SUFFIXES_OF = {
  'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
  'PNG': ('.png',),
  'WEBP': ('.webp',),
  'GIF': ('.gif',),
  'BMP': ('.bmp', '.dib'),
  'PPM': ('.ppm', '.pgm', '.pbm', '.pnm'),
  'TIFF': ('.tif', '.tiff'),
  'AVIF': ('.avif',),
}
# Pillow reads the headers, OpenCV the pixels; not every build knows every format.
_FORMATS = tuple(
  name
  for name, suffixes in _SUFFIXES_OF.items()
  if name in Image.OPEN and cv2.haveImageWriter(f'x{suffixes[0]}')
)
SUFFIXES = frozenset(x for name in _FORMATS for x in _SUFFIXES_OF[name])


# An array of NumPy's format stands for an image of any number of channels.
_NPY, _NPY_MAGIC = 'NPY', b'\x93NUMPY'
_JPEG_MAGIC = b'\xff\xd8'
_MOST_CHANNELS = 16
# Fields of a TIFF: what its colours are, and whether another channel is opacity, with
# which colours are multiplied or not.
_KIND, _RGB = 262, 2
_EXTRA_SAMPLES, _MULTIPLIED, _SEPARATE = 338, 1, 2


def suffix(name: str) -> str:
  """The suffix of a file's name, in lower case; '' if it has none."""
  stem, dot, last = name.rpartition('.')
  return f'.{last.lower()}' if dot and stem else ''


def decode(image: bytes | np.ndarray, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """The pixels [H, W, 3] of an encoded image; an array [H, W, C] is taken as it is.

  Gray and CMYK become RGB, what is transparent lies on white. Sixteen bits become
  eight: the largest value of an image says of how many bits (8, 10, 12, 14 or 16) its
  values are, and the first 8 of these are kept. A JPEG is turned as its EXIF
  orientation says. Of several frames or pages the first is read.

  Args:
    image: a file of one of the formats of `SUFFIXES`; or an NPY file of uint8 [H, W, C]
      or [H, W], with C from 1 to 16.
    max_pixels: largest number of pixels.

  Raises:
    DecodeError: it is no image, has more pixels, a fourth band that is not opacity, or
      a part of it is missing. Damage inside compressed data that the decoder can go on
      after is not noticed.
  """
  if isinstance(image, np.ndarray):
    return image
  title = _checked(image, max_pixels)
  if image.startswith(_NPY_MAGIC):
    return _array(image, title)
  # Decoding at half the size, where crops allow it, is faster, but as interpolation
  # does not smooth, crops then differ by 12 of 255 on average in images with texture.
  if image.startswith(_JPEG_MAGIC):
    return _imdecode(image, cv2.IMREAD_COLOR_RGB, title)
  # Other formats may have opacity or 16 bits, which the flags for colour would drop.
  pixels = _imdecode(image, cv2.IMREAD_UNCHANGED, title)
  if pixels.ndim == 2:
    return cv2.cvtColor(_eight_bits(pixels, title), cv2.COLOR_GRAY2RGB)
  if pixels.shape[2] == 4:
    return _on_white(pixels, image, title)
  if pixels.shape[2] != 3:
    raise DecodeError(f'{title} has {pixels.shape[2]} channels; 1, 3 or 4 can be read')
  return cv2.cvtColor(_eight_bits(pixels, title), cv2.COLOR_BGR2RGB)


def decode_gray(image: bytes | np.ndarray, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """The pixels [H, W, 1] of an encoded image; RGB becomes its luma.

  What is transparent lies on white. An array [H, W, C] is taken as it is, and so is an
  NPY file.

  Raises:
    DecodeError: as by `decode`.
  """
  if isinstance(image, np.ndarray):
    return image
  title = _checked(image, max_pixels)
  if image.startswith(_NPY_MAGIC):
    return _array(image, title)
  if not image.startswith(_JPEG_MAGIC):  # Which has no opacity.
    pixels = _imdecode(image, cv2.IMREAD_UNCHANGED, title)
    if pixels.ndim == 2:
      return _eight_bits(pixels, title)[..., None]
    if pixels.shape[2] == 4:
      rgb = _on_white(pixels, image, title)
      return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None]
  flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
  return _eight_bits(_imdecode(image, flags, title), title)[..., None]


def decode_classes(
  segmentation: bytes | np.ndarray, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """The class of each pixel, uint8 [H, W], of a PNG; an array is taken as it is.

  The PNG is gray, or has a palette as those of PASCAL VOC, whose indices are the
  classes: OpenCV would give their colours.

  Raises:
    DecodeError: it is no PNG, or one of colours.
  """
  if isinstance(segmentation, np.ndarray):
    return segmentation
  title = _checked(segmentation, max_pixels)
  if not title.startswith('a PNG'):
    raise DecodeError(f'the segmentation is {title}; use a PNG, which keeps all values')
  try:
    opened = Image.open(io.BytesIO(segmentation))
    classes = np.array(opened)
  except (OSError, SyntaxError, ValueError) as error:  # All that Pillow raises.
    raise DecodeError(f'the segmentation, {title}: {one_line(error)}') from error
  if opened.mode not in ('1', 'L', 'P'):
    raise DecodeError(
      f'the segmentation is {title} of mode {opened.mode}; use gray of 8 bits, or a '
      'palette'
    )
  return classes.astype(np.uint8)


def size(image: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, from its header: it is not decoded.

  Raises:
    DecodeError: it is no image.
  """
  return _header(image)[1:]


def _header(image: bytes) -> tuple[str, int, int]:
  """Format, height and width; unlike `Image.open` without a limit of its own."""
  if image.startswith(_NPY_MAGIC):
    return _NPY, *_npy_shape(image)[:2]
  for name in _FORMATS:
    factory, accept = Image.OPEN[name]
    if accept and not accept(image[:16]):
      continue
    try:
      with factory(io.BytesIO(image), '') as opened:
        return name, opened.height, opened.width
    except Image.DecompressionBombError as error:  # Some parsers have Pillow's limit.
      raise DecodeError(f'a {name}: {one_line(error)}') from error
    except Exception as error:  # Whatever damaged headers make of a parser.
      raise DecodeError(
        f'{len(image):,} bytes have the damaged header of a {name}: {one_line(error)}'
      ) from error
  start = f', they start with {image[:12]!r}' if image else ''
  known = ', '.join(_FORMATS)
  raise DecodeError(f'{len(image):,} bytes are no image ({known}){start}')


def _npy_shape(image: bytes) -> tuple[int, int, int]:
  """Height, width and channels of an array in NumPy's format."""
  file = io.BytesIO(image)
  try:
    version = np.lib.format.read_magic(file)
    read = getattr(np.lib.format, f'read_array_header_{version[0]}_0')
    shape, _, dtype = read(file)
  except (AttributeError, ValueError) as error:
    raise DecodeError(f'an NPY with a damaged header: {one_line(error)}') from error
  height, width, channels = (*shape, 1)[:3] if len(shape) in (2, 3) else (0, 0, 0)
  is_image = height * width > 0 and 1 <= channels <= _MOST_CHANNELS
  if dtype != np.uint8 or not is_image:
    raise DecodeError(
      f'an NPY of {dtype}{list(shape)}; use uint8 [H, W, C] with up to '
      f'{_MOST_CHANNELS} channels'
    )
  return height, width, channels


def _array(image: bytes, title: str) -> np.ndarray:
  """The pixels [H, W, C] of an array in NumPy's format."""
  shape = _npy_shape(image)
  try:
    return np.load(io.BytesIO(image), allow_pickle=False).reshape(shape)
  except (EOFError, ValueError) as error:
    raise DecodeError(f'{title} that is truncated or damaged') from error


def _checked(image: bytes, max_pixels: int) -> str:
  """What an encoded image is, in words, if it is not too large."""
  name, height, width = _header(image)
  title = f'a {name} of {height}×{width} pixels'
  if height * width > max_pixels:
    raise DecodeError(
      f'{title}, {height * width:,} in all, more than config.data.max_pixels = '
      f'{max_pixels:,}'
    )
  return title


def _imdecode(image: bytes, flags: int, title: str) -> np.ndarray:
  try:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
  except cv2.error as error:  # More pixels than OpenCV's own limit.
    raise DecodeError(f'{title}: {one_line(error)}') from error
  if pixels is None:
    raise DecodeError(f'{title} that is truncated or damaged ({len(image):,} bytes)')
  return pixels


def _eight_bits(pixels: np.ndarray, title: str) -> np.ndarray:
  """Of 16-bit pixels the first 8 of the bits that their largest value has."""
  if pixels.dtype == np.uint8:
    return pixels
  if pixels.dtype != np.uint16:
    raise DecodeError(
      f'{title} has pixels of {pixels.dtype}; save it with 8 or 16 bits'
    )
  bits = max(int(pixels.max()).bit_length(), 8)
  # Depths are even: 9 bits count as 10.
  bits += bits % 2
  # Only the main process warns: every worker would repeat the message.
  if bits < 16 and multiprocessing.parent_process() is None:
    logging.log_first_n(
      logging.WARNING,
      '%s with 16 bits has values up to %d: they are read as %d bits, and so are those '
      'of other images, each by its largest value',
      1,
      title,
      pixels.max(),
      bits,
    )
  return (pixels >> (bits - 8)).astype(np.uint8)


def _on_white(pixels: np.ndarray, image: bytes, title: str) -> np.ndarray:
  """Decoded colours and opacity [H, W, 4] of an image before white, as RGB.

  Raises:
    DecodeError: the fourth channel is not opacity.
  """
  is_multiplied = title.startswith('a TIFF') and _is_multiplied(image, pixels, title)
  bgr, opacity = _eight_bits(pixels[..., :3], title), pixels[..., 3]
  if opacity.dtype == np.uint16:  # Opacity has no range but its own.
    opacity = (opacity >> 8).astype(np.uint8)
  opacity = np.ascontiguousarray(_eight_bits(opacity, title))
  white = cv2.bitwise_not(opacity)
  rgb = np.empty(bgr.shape, np.uint8)
  for channel in range(3):
    colour = np.ascontiguousarray(bgr[..., 2 - channel])
    if not is_multiplied:
      # One channel after the other, to save memory.
      colour = cv2.multiply(colour, opacity, scale=1 / 255)
    rgb[..., channel] = cv2.add(colour, white)
  return rgb


def _is_multiplied(image: bytes, pixels: np.ndarray, title: str) -> bool:
  """Whether the decoded colours of a TIFF are multiplied by its opacity.

  Raises:
    DecodeError: its fourth channel may be any band, such as infrared.
  """
  with Image.OPEN['TIFF'][0](io.BytesIO(image), '') as opened:
    kind, extra = opened.tag_v2.get(_KIND), opened.tag_v2.get(_EXTRA_SAMPLES, ())
  is_opacity = _MULTIPLIED in extra or _SEPARATE in extra
  # Of inks OpenCV makes colours, of full opacity.
  if kind == _RGB and not is_opacity:
    raise DecodeError(
      f'{title} has a fourth band that is not marked as opacity; save the bands as NPY '
      'files and read them with images=npy, or save three'
    )
  # OpenCV multiplies colours of 8 bits itself.
  return pixels.dtype == np.uint8 or _MULTIPLIED in extra


def random_resized_crop(
  rng: np.random.Generator,
  image: np.ndarray,
  size: int,
  area: tuple[float, float] = (0.08, 1.0),
  interpolation: str = 'bicubic',
) -> np.ndarray:
  """The random crop of BYOL, resized to [size, size, C].

  Log of the aspect ratio ~ U(log 3/4, log 4/3); one try, each side clipped to the
  image; position uniform.

  Args:
    rng: draws the crop.
    image: [H, W, C].
    size: pixels.
    area: the area is uniform between these shares of the image.
    interpolation: see `resampling`.
  """
  height, width, _ = image.shape
  area = rng.uniform(*area) * height * width
  aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
  # w·h = area and w/h = aspect give w = √(area·aspect) and h = √(area/aspect).
  crop_width = min(max(round(math.sqrt(area * aspect)), 1), width)
  crop_height = min(max(round(math.sqrt(area / aspect)), 1), height)
  top = rng.integers(height - crop_height + 1)
  left = rng.integers(width - crop_width + 1)
  window = image[top : top + crop_height, left : left + crop_width]
  return resampling.resize(window, size, size, interpolation)


def centre_crop(
  image: np.ndarray, size: int, interpolation: str = 'bicubic'
) -> np.ndarray:
  """The central square of evaluations, resized to [size, size, C].

  Its side is size/(size + 32) of the shorter side of the image, rounded down: 224/256,
  or 128/160. Where it cannot be in the middle it lies half a pixel below and to the
  right, as in BYOL's code.
  """
  height, width, _ = image.shape
  side = max(min(height, width) * size // (size + 32), 1)
  top, left = (height - side + 1) // 2, (width - side + 1) // 2
  window = image[top : top + side, left : left + side]
  return resampling.resize(window, size, size, interpolation)


def shorter_side(
  image: np.ndarray, size: int, interpolation: str = 'bicubic'
) -> np.ndarray:
  """The central square of the image resized to a shorter side of `size`.

  Of a square image it is the whole.
  """
  height, width, _ = image.shape
  scale = size / min(height, width)
  resized = resize_to(image, round(scale * height), round(scale * width), interpolation)
  return central_window(resized, size, size)


def central_window(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """The central [height, width] of [H, W, ...], or all of it along a shorter side."""
  top, left = max(x.shape[0] - height, 0) // 2, max(x.shape[1] - width, 0) // 2
  return x[top : top + height, left : left + width]


def resize_to(
  image: np.ndarray, height: int, width: int, interpolation: str = 'bicubic'
) -> np.ndarray:
  """Resizes [H, W, C] to [height, width, C]; see `resampling.resize`."""
  return resampling.resize(image, height, width, interpolation)


def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """[H, W] of any type to [height, width], each pixel that of its nearest neighbour."""
  return cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
