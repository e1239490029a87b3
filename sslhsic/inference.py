"""A pre-trained encoder as a function of images, for use in other programs."""

import os
import pathlib
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from sslhsic import storage
from sslhsic.data import images as images_lib
from sslhsic.data.errors import DecodeError
from sslhsic.evaluation import encoder as encoder_lib
from sslhsic.networks import classifier
from sslhsic.runs import paths
from sslhsic.weights import pretrained
from sslhsic.weights import settings as settings_lib


class Encoder:
  """Maps images to embeddings, in evaluation mode, on JAX's default device.

  Pickled, as for a process pool, it is the path that it was loaded from.

  Attributes:
    settings: which network it is, which images it has seen, where it comes from.
  """

  settings: settings_lib.Settings

  def __init__(self, init_from: str | pathlib.Path):
    """Reads the encoder; see `load`."""
    path = paths.parse(init_from, 'init_from')
    self._path = str(path) if storage.is_bucket(path) else os.path.abspath(path)
    self.settings = found = pretrained.settings(str(init_from))
    network = classifier.encoder(
      encoder=found.encoder, encoder_options=found.encoder_options
    )
    shape = (found.crop_size or 32, found.crop_size or 32, len(found.mean))
    start = pretrained.load(
      str(init_from),
      *encoder_lib.shapes(network, shape),
      encoder=found.encoder,
      encoder_options=found.encoder_options,
      mean=found.mean,
      std=found.std,
    )
    self._values = jax.device_put((start.params, start.network_state))
    self._embed = jax.jit(lambda x, images: network.apply(*x, None, images, False)[0])

  def __reduce__(self) -> tuple:
    return Encoder, (self._path,)

  def preprocess(
    self, pictures: Sequence[np.ndarray | Image.Image | str | pathlib.Path]
  ) -> np.ndarray:
    """Images as the encoder has seen them in its evaluation.

    Args:
      pictures: uint8 [H, W, C] arrays of any size, RGB; images of Pillow; or paths of
        image files. Without a crop (`settings.crop_size` of 0) they must be of one
        size. JPEGs are turned as their EXIF data say, as files and as Pillow's images,
        and what is transparent lies on white.

    Returns:
      Float32 [n, S, S, C], cropped to the central square and normalised.

    Raises:
      ValueError: `pictures` is a single one or empty; sizes differ; or a picture has
        another number of channels or cannot be read, of which the message names it.
    """
    if isinstance(pictures, str | pathlib.Path | Image.Image):
      raise ValueError(f'pictures is a single one, {pictures}; pass a list')
    found = self.settings
    crop = encoder_lib.crop(found.crop_size, found.evaluation_crop, found.interpolation)
    pixels = [crop(None, self._read(picture)) for picture in pictures]
    if not pixels:
      raise ValueError('there is no picture; pass a list of one or more')
    shapes = sorted({x.shape for x in pixels})
    if len(shapes) > 1:
      sizes = ' and '.join(f'{height}×{width}' for height, width, _ in shapes)
      raise ValueError(
        f'pictures are {sizes}, and this encoder takes them whole (settings.crop_size '
        'is 0); pass pictures of one size'
      )
    scaled = np.stack(pixels).astype(np.float32) / 255
    mean, std = np.array([found.mean, found.std], np.float32)
    return (scaled - mean) / std

  def __call__(self, images: chex.Array) -> jax.Array:
    """Embeddings [n, c] of images [n, H, W, C] that `preprocess` has made."""
    chex.assert_shape(images, (None, None, None, len(self.settings.mean)))
    return self._embed(self._values, jnp.asarray(images, jnp.float32))

  def _read(self, picture: np.ndarray | Image.Image | str | pathlib.Path) -> np.ndarray:
    channels = len(self.settings.mean)
    if isinstance(picture, Image.Image):
      picture = _pixels(picture, channels)
    elif not isinstance(picture, np.ndarray):
      decode = images_lib.decode_gray if channels == 1 else images_lib.decode
      path = pathlib.Path(picture).expanduser()
      try:
        picture = decode(path.read_bytes())
      except DecodeError as error:
        raise DecodeError(f'{path}: {error}') from error
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != channels:
      raise ValueError(
        f'a picture is {picture.dtype}{picture.shape}; use uint8 [H, W, {channels}]'
      )
    return picture


def _pixels(picture: Image.Image, channels: int) -> np.ndarray:
  """The pixels of an image of Pillow, uint8 [H, W, 1 or 3]."""
  if picture.mode[0] in 'IF':
    raise ValueError(
      f"a picture of Pillow's mode {picture.mode}, whose range is not known; scale it "
      'to 0 … 255 and use uint8'
    )
  # As files: of other formats the decoder leaves images as they are. None is an image
  # that was changed since it was opened.
  if picture.format in ('JPEG', 'MPO', None):
    picture = ImageOps.exif_transpose(picture)
  if picture.has_transparency_data:
    rgba = picture.convert('RGBA')
    white = Image.new('RGBA', rgba.size, 'white')
    picture = Image.alpha_composite(white, rgba)
  if channels == 1:
    return np.asarray(picture.convert('L'))[..., None]
  return np.asarray(picture.convert('RGB'))
