"""What timm and Hugging Face say of an encoder, in files beside its weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sslhsic import storage
from sslhsic.runs import workdir

WEIGHTS_NAME = 'model.safetensors'
CONFIG_NAME = 'config.json'  # Of both libraries.
PREPROCESSOR_NAME = 'preprocessor_config.json'  # Of Hugging Face.


class Described(NamedTuple):
  """Facts about an encoder; None where no file says them.

  Attributes:
    num_heads: of attention.
    crop_size: side of its images, in pixels.
    mean, std: of its images in [0, 1], one number a channel.
    evaluation_crop: that of `encoder.CROPS` which is nearest to its own.
  """

  num_heads: int | None = None
  crop_size: int | None = None
  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  evaluation_crop: str = 'centre'


def beside(path: storage.Path) -> Described:
  """Reads what is said of a file of weights in its directory.

  Both libraries name the weights `WEIGHTS_NAME`; of another file nothing is known.

  Raises:
    ValueError: a file there says something else than such files do.
  """
  if path.name != WEIGHTS_NAME:
    return Described()
  config = workdir.read_json(path.parent / CONFIG_NAME)
  images = workdir.read_json(path.parent / PREPROCESSOR_NAME)
  of_timm = _mapping(config.get('pretrained_cfg'))
  arguments = _mapping(config.get('model_args'))
  try:
    sizes = [
      _side(images.get('crop_size')),
      _side(images.get('size')),
      _side(of_timm.get('input_size')),
    ]
    heads = arguments.get('num_heads') or config.get('num_attention_heads')
    size = next((size for size in sizes if size), None)
    return Described(
      None if heads is None else int(heads),
      size,
      _numbers(images.get('image_mean') or of_timm.get('mean')),
      _numbers(images.get('image_std') or of_timm.get('std')),
      _crop(images, of_timm, size or 224),
    )
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{path.parent / CONFIG_NAME} or {PREPROCESSOR_NAME} beside it does not describe '
      f'{path.name} as timm and Hugging Face do: {error}; mend it, or move the file of '
      'weights to a directory of its own'
    ) from error


def _mapping(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _numbers(values: Any) -> tuple[float, ...] | None:
  return None if values is None else tuple(float(x) for x in values)


def _crop(images: Mapping[str, Any], of_timm: Mapping[str, Any], size: int) -> str:
  """'centre', a part of the shorter side of an image, or 'shorter_side', all of it."""
  share = images.get('crop_pct') or of_timm.get('crop_pct')
  if share is None and images:  # Hugging Face's Vision Transformers cut nothing off.
    share = None if images.get('do_center_crop', 'crop_pct' in images) else 1.0
  if share is None:
    return 'centre'
  halfway = (1 + size / (size + 32)) / 2
  return 'shorter_side' if float(share) > halfway else 'centre'


def _side(size: Any) -> int | None:
  """The side of an image: itself, by its name, or the last of [channels, h, w]."""
  if isinstance(size, Mapping):
    size = size.get('height', size.get('shortest_edge'))
  elif isinstance(size, list | tuple):
    size = size[-1]
  return None if size is None else int(size)
