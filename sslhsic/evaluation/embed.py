"""Embeddings of a data set with a pre-trained encoder, and the file that holds them."""

from typing import NamedTuple

import numpy as np

from sslhsic import atomic, storage
from sslhsic.data import images, sources
from sslhsic.evaluation import encoder
from sslhsic.weights import settings as settings_lib


class Embedded(NamedTuple):
  """Embeddings [n, c], labels and paths or names [n] of a data set."""

  embeddings: np.ndarray
  labels: np.ndarray
  names: np.ndarray


def embed(
  settings: settings_lib.Settings,
  source: sources.Source,
  *,
  init_from: str,
  batch_size: int,
  max_bad_fraction: float,
  max_pixels: int = images.MAX_PIXELS,
) -> Embedded:
  """Embeds every example of a source; corrupt images are left out.

  Args:
    settings: of the encoder, see `pretrained.settings`.
    source: the examples.
    init_from: where the values of the encoder come from, see `pretrained.load`.
    batch_size: over all devices.
    max_bad_fraction: share of the images that may be corrupt.
    max_pixels: of an image; larger ones count as corrupt.

  Raises:
    ValueError: there is no such encoder, or it does not fit the images.
  """
  frozen = encoder.FrozenEncoder(
    settings,
    init_from=init_from,
    source=source,
    crop=encoder.crop(
      settings.crop_size, settings.evaluation_crop, settings.interpolation
    ),
    batch_size=batch_size,
    max_bad_fraction=max_bad_fraction,
    max_pixels=max_pixels,
  )
  split, rows = frozen.embed_with_rows(source)
  names = np.array([sources.path_or_name(source, row) for row in rows])
  return Embedded(split.features, split.labels, names)


def write(path: storage.Path, found: Embedded) -> None:
  """Writes a NumPy archive, whole or not at all."""
  with atomic.opened(path) as file:
    np.savez(file, **found._asdict())
