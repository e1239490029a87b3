"""Exports: directories that other libraries load an encoder from, offline."""

import json
import pathlib
from typing import Any, NamedTuple

from sslhsic import atomic, storage
from sslhsic.weights import card, families, files, layouts
from sslhsic.weights import settings as settings_lib

# Every encoder has the last one, and the others that its family has.
FORMATS = 'torchvision', 'timm', 'huggingface', 'haiku'
PROJECTOR_NAME = 'projector.safetensors'

_BICUBIC = 3  # As Pillow, and so Hugging Face, numbers its filters.


class Network(NamedTuple):
  """What is exported.

  Attributes:
    params, network_state: of the modules encoder/… and projector/….
    with_projector: whether the projector is to be exported too.
  """

  params: layouts.Tree
  network_state: layouts.Tree
  with_projector: bool


def write(
  directory: storage.Path,
  format_name: str,
  network: Network,
  settings: settings_lib.Settings,
  facts: card.Facts,
) -> None:
  """Writes an export, whole or not at all.

  Args:
    directory: to be made; it may be there if it is empty.
    format_name: one of `FORMATS`.
    network: its weights.
    settings: of its encoder.
    facts: for the model card.

  Raises:
    ValueError: the directory is not empty, or the library has no such network.
    OSError: it cannot be written.
  """
  if format_name not in FORMATS:
    raise ValueError(f'unknown format {format_name!r}; use one of {", ".join(FORMATS)}')
  if storage.is_file(directory) or storage.names(directory):
    raise ValueError(f'{directory} is there already, and not empty; use another --out')
  # Both may raise an error, and so come before anything is written.
  layout, texts = _layout(format_name, settings), _texts(format_name, settings)
  with atomic.directory(directory, last=files.WEIGHTS_NAME) as temporary:
    _write_weights(temporary, layout, network, settings)
    for name, value in texts.items():
      (temporary / name).write_text(json.dumps(value, indent=2) + '\n')
    text = card.render(format_name, settings, facts)
    (temporary / 'README.md').write_text(text, encoding='utf-8')


def _layout(format_name: str, settings: settings_lib.Settings) -> layouts.Layout:
  """The layout of the tensors.

  Raises:
    ValueError: the encoders of this family are not written in this format.
  """
  formats = {**families.of(settings.encoder).formats, 'haiku': layouts.HAIKU}
  if format_name not in formats:
    raise ValueError(
      f'{settings.encoder} has no layout for the format {format_name!r}; use '
      f'--format={" or ".join(formats)}'
    )
  return formats[format_name]


def _write_weights(
  directory: pathlib.Path,
  layout: layouts.Layout,
  network: Network,
  settings: settings_lib.Settings,
) -> None:
  of = lambda root, tree: {m: x for m, x in tree.items() if m.split('/')[0] == root}
  trees = network.params, network.network_state
  of_encoder = [of('encoder', tree) for tree in trees]
  # Our layout has parameters alone.
  computed = {} if layout.is_haiku else families.of(settings.encoder).computed(settings)
  tensors = layouts.to_tensors(layout, *of_encoder, computed)
  files.write(directory / files.WEIGHTS_NAME, tensors, settings)
  if network.with_projector:
    tensors = layouts.to_tensors(layout, *(of('projector', tree) for tree in trees))
    files.write(directory / PROJECTOR_NAME, tensors, settings)


# The files beside the weights


def _texts(format_name: str, settings: settings_lib.Settings) -> dict[str, Any]:
  """JSON values by the name of their file.

  Raises:
    ValueError: the library has no such network.
  """
  texts = families.of(settings.encoder).config_files(format_name, settings)
  if format_name == 'huggingface':
    texts['preprocessor_config.json'] = _image_processor(settings)
  return texts


def _image_processor(settings: settings_lib.Settings) -> dict[str, Any]:
  """The evaluation's crop, as Hugging Face has it: resized first, by Pillow."""
  size = settings.crop_size or 224
  return {
    'image_processor_type': 'BitImageProcessor',
    'do_convert_rgb': len(settings.mean) == 3,
    'do_resize': settings.crop_size > 0,
    'size': {'shortest_edge': settings_lib.resized_side(settings)},
    'resample': _BICUBIC,
    'do_center_crop': settings.crop_size > 0,
    'crop_size': {'height': size, 'width': size},
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': settings.mean,
    'image_std': settings.std,
  }
