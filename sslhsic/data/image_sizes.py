"""Heights and widths of the images of a source, without decoding them."""

import io
from concurrent import futures

import numpy as np
from PIL import Image

from sslhsic.data import sources
from sslhsic.data.errors import DecodeError, InputError

_THREADS = 16
_ORIENTATION = 274  # The tag of EXIF; from 5 on, rows and columns change places.


def of(source: sources.Source) -> np.ndarray:
  """The sizes of all images, [n, 2] int: height and width, as they are decoded.

  A source with the attribute `sizes` [n, 2] knows them; of others, the header of every
  image is read. What is no image has the size 0, 0.

  Raises:
    InputError: an image cannot be read.
  """
  if isinstance(source, sources.SubsetSource):
    return of(source.source)[source.rows]
  if isinstance(source, sources.ConcatenatedSource):
    return np.concatenate([of(source.first), of(source.second)])
  if hasattr(source, 'sizes'):
    return np.asarray(source.sizes, int)

  def size(row: int) -> tuple[int, int]:
    try:
      return _of_image(source[row]['image'])
    except DecodeError:  # The loader will tell, and count it.
      return 0, 0
    except OSError as error:
      raise InputError(f'cannot read {source.name(row)}: {error}') from error

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    return np.array(list(pool.map(size, range(len(source)))))


def _of_image(image: bytes | np.ndarray) -> tuple[int, int]:
  if isinstance(image, np.ndarray):
    return image.shape[:2]
  try:
    with Image.open(io.BytesIO(image)) as opened:
      # `images.decode` turns JPEGs only. Pillow's sizes are (width, height).
      is_turned = opened.format == 'JPEG' and opened.getexif().get(_ORIENTATION, 1) > 4
      return opened.size if is_turned else opened.size[::-1]
  except (OSError, SyntaxError, ValueError):  # All that Pillow raises.
    return 0, 0
