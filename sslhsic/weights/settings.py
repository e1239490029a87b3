"""What is to be known of an encoder besides its weights, to use them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class Settings(NamedTuple):
  """Which network an encoder is, and which images it has seen.

  Attributes:
    encoder, encoder_options: the network, see `networks.create`.
    crop_size: side of the square images, in pixels; 0: they are not cropped.
    mean, std: of the images in [0, 1], one number a channel.
    description: where the weights come from, in words.
    evaluation_crop: how images are cropped in evaluations, see `encoder.CROPS`.
    interpolation: how they are resized there, see `resampling`.
  """

  encoder: str
  encoder_options: dict[str, Any]
  crop_size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  description: str
  evaluation_crop: str = 'centre'
  interpolation: str = 'bicubic'


def of_run(config: Mapping[str, Any], description: str) -> Settings:
  """Those of a pre-training or fine-tuning, from its config.json."""
  network, data = config['network'], config['data']
  return Settings(
    network['encoder'],
    dict(network['encoder_options']),
    data['crop_size'],
    tuple(data['mean']),
    tuple(data['std']),
    description,
    data['evaluation_crop'],
    data['evaluation_interpolation'],
  )


def resized_side(settings: Settings) -> int:
  """Shorter side that an image is resized to before its centre is cropped, in pixels.

  Other libraries resize first: to size + 32 for 'centre', to size for 'shorter_side'.
  Without a crop it is the size of ImageNet's.
  """
  size = settings.crop_size or 224
  return size if settings.evaluation_crop == 'shorter_side' else size + 32


def to_json(settings: Settings) -> str:
  """As text, for the header of a file."""
  return json.dumps(settings._asdict())


def from_json(text: str) -> Settings:
  """Undoes `to_json`.

  Raises:
    ValueError: the text is of something else.
  """
  try:
    found = Settings(**json.loads(text))
  except (TypeError, ValueError) as error:
    raise ValueError(f'settings of an encoder cannot be read: {error}') from error
  # JSON gives lists, which never equal the tuples that they are compared with.
  return found._replace(mean=tuple(found.mean), std=tuple(found.std))
