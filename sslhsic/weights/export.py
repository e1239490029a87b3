"""Exports: directories that other libraries load an encoder from, offline."""

import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

from sslhsic.weights import architecture, card, files, layouts
from sslhsic.weights import settings as settings_lib

# The layout of the tensors, by format.
FORMATS = {
  'torchvision': layouts.TORCHVISION,
  'timm': layouts.TORCHVISION,
  'huggingface': layouts.HUGGINGFACE,
  'haiku': layouts.HAIKU,
}
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
  directory: pathlib.Path,
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
  if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
    raise ValueError(f'{directory} is there already, and not empty; use another --out')
  texts = _texts(format_name, settings)
  directory.parent.mkdir(parents=True, exist_ok=True)
  temporary = directory.with_name(f'.{directory.name}.{os.getpid()}')
  temporary.mkdir()
  try:
    _write_weights(temporary, FORMATS[format_name], network, settings)
    for name, value in texts.items():
      (temporary / name).write_text(json.dumps(value, indent=2) + '\n')
    text = card.render(format_name, settings, facts)
    (temporary / 'README.md').write_text(text, encoding='utf-8')
    for path in temporary.iterdir():  # On disk before they have their name.
      with path.open('r+b') as file:  # Windows does not flush what is only read.
        os.fsync(file.fileno())
    temporary.replace(directory)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def _write_weights(directory, layout, network, settings) -> None:
  of = lambda root, tree: {m: x for m, x in tree.items() if m.startswith(f'{root}/')}
  trees = network.params, network.network_state
  tensors = layouts.to_tensors(layout, *(of('encoder', tree) for tree in trees))
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
  found = architecture.of(settings.encoder, settings.encoder_options)
  if format_name == 'timm':
    return {'config.json': _timm(found, settings)}
  if format_name == 'huggingface':
    return {
      'config.json': _huggingface(found, settings),
      'preprocessor_config.json': _image_processor(settings),
    }
  return {}


def _timm(
  found: architecture.Architecture, settings: settings_lib.Settings
) -> dict[str, Any]:
  if not found.stock_name or len(settings.mean) != 3:
    raise ValueError(
      f'timm has no network like {settings.encoder} with {settings.encoder_options} on '
      f"images of {len(settings.mean)} channels; use the format 'torchvision', whose "
      'names are the same, and build the network yourself'
    )
  size = settings.crop_size or 224
  return {
    'architecture': found.stock_name,
    'num_classes': 0,
    'num_features': found.channels_per_group[-1],
    'pretrained_cfg': {
      'input_size': [3, size, size],
      'fixed_input_size': False,
      'interpolation': 'bicubic',
      'crop_pct': 224 / 256 if settings.crop_size else 1.0,
      'crop_mode': 'center',
      'mean': settings.mean,
      'std': settings.std,
      'num_classes': 0,
      'first_conv': 'conv1',
      'classifier': 'fc',
    },
  }


def _huggingface(
  found: architecture.Architecture, settings: settings_lib.Settings
) -> dict[str, Any]:
  if found.stem != 'imagenet':
    raise ValueError(
      "Hugging Face's ResNet has a stem of a 7×7 convolution and a max-pool, "
      f"{settings.encoder} here has a stem '{found.stem}'; use the format 'torchvision'"
    )
  return {
    'architectures': ['ResNetModel'],
    'model_type': 'resnet',
    'depths': found.blocks_per_group,
    'hidden_sizes': found.channels_per_group,
    'embedding_size': found.stem_channels,
    'layer_type': 'bottleneck' if found.bottleneck else 'basic',
    'num_channels': len(settings.mean),
    'hidden_act': 'relu',
    'downsample_in_first_stage': False,
    'downsample_in_bottleneck': False,
    'torch_dtype': 'float32',
  }


def _image_processor(settings: settings_lib.Settings) -> dict[str, Any]:
  """The evaluation's crop: the shorter side to 256, the central square of 224."""
  size = settings.crop_size or 224
  return {
    'image_processor_type': 'BitImageProcessor',
    'do_convert_rgb': len(settings.mean) == 3,
    'do_resize': settings.crop_size > 0,
    'size': {'shortest_edge': round(size * 256 / 224)},
    'resample': _BICUBIC,
    'do_center_crop': settings.crop_size > 0,
    'crop_size': {'height': size, 'width': size},
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': settings.mean,
    'image_std': settings.std,
  }
