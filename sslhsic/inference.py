"""A pre-trained encoder as a function of images, for use in other programs."""

import pathlib
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic.data import images as images_lib
from sslhsic.evaluation import encoder as encoder_lib
from sslhsic.networks import classifier
from sslhsic.weights import pretrained
from sslhsic.weights import settings as settings_lib


class Encoder:
  """Maps images to embeddings, in evaluation mode, on JAX's default device.

  Attributes:
    settings: which network it is, which images it has seen, where it comes from.
  """

  settings: settings_lib.Settings

  def __init__(self, init_from: str | pathlib.Path):
    """Reads the encoder; see `load`."""
    self.settings = found = pretrained.settings(str(init_from))
    network = classifier.encoder(
      encoder=found.encoder, encoder_options=found.encoder_options
    )
    shape = (found.crop_size or 32, found.crop_size or 32, len(found.mean))
    start = pretrained.load(
      str(init_from),
      *encoder_lib.shapes(network, shape),
      mean=found.mean,
      std=found.std,
    )
    self._values = jax.device_put((start.params, start.network_state))
    self._embed = jax.jit(lambda x, images: network.apply(*x, None, images, False)[0])

  def preprocess(
    self, pictures: Sequence[np.ndarray | str | pathlib.Path]
  ) -> np.ndarray:
    """Images as the encoder has seen them in its evaluation.

    Args:
      pictures: uint8 [H, W, C] arrays of any size, RGB, or paths of JPEG, PNG or WebP
        files. Without a crop (`settings.crop_size` of 0) they must be of one size.

    Returns:
      Float32 [n, S, S, C], cropped to the central square and normalised.

    Raises:
      ValueError: an image has another number of channels, or no image can be made.
    """
    found = self.settings
    crop = encoder_lib.crop(found.crop_size, found.evaluation_crop, found.interpolation)
    pixels = [crop(None, self._read(picture)) for picture in pictures]
    scaled = np.stack(pixels).astype(np.float32) / 255
    mean, std = (np.float32(x) for x in (self.settings.mean, self.settings.std))
    return (scaled - mean) / std

  def __call__(self, images: chex.Array) -> jax.Array:
    """Embeddings [n, c] of images [n, H, W, C] that `preprocess` has made."""
    chex.assert_shape(images, (None, None, None, len(self.settings.mean)))
    return self._embed(self._values, jnp.asarray(images, jnp.float32))

  def _read(self, picture: np.ndarray | str | pathlib.Path) -> np.ndarray:
    if not isinstance(picture, np.ndarray):
      picture = images_lib.decode(pathlib.Path(picture).read_bytes())
    channels = len(self.settings.mean)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != channels:
      raise ValueError(
        f'a picture is {picture.dtype}{picture.shape}; use uint8 [H, W, {channels}]'
      )
    return picture
