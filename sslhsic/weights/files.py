"""Files of weights: safetensors, read and written; nothing that can run code."""

import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from sslhsic import storage
from sslhsic.weights import described as described_lib
from sslhsic.weights import families, layouts
from sslhsic.weights import settings as settings_lib

WEIGHTS_NAME = described_lib.WEIGHTS_NAME

_METADATA = 'sslhsic'  # In the header of a file, the settings of its encoder.
_PICKLES = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar')
# Of files that do not say: the images that nearly all public encoders have seen.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_CROP = 224
_GUESSED = 'those of ImageNet, as it does not say'


class EncoderFile(NamedTuple):
  """What is in a file of weights.

  Attributes:
    path: of the file.
    layout: how the encoder is named and laid out.
    tensors: of the encoder, by their names in the layout.
    others: names of the other tensors.
    settings: of the encoder; None if the file does not say.
    described: what files beside it say, if it does not say all itself.
  """

  path: storage.Path
  layout: layouts.Layout
  tensors: layouts.Tensors
  others: list[str]
  settings: settings_lib.Settings | None
  described: described_lib.Described

  @property
  def not_used(self) -> str:
    """The other tensors in words, those of one module together; empty if none."""
    modules = Counter(name.rpartition('.')[0] or name for name in self.others)
    if len(modules) > 10:
      modules = Counter('.'.join(name.split('.')[:2]) for name in self.others)
    return ', '.join(
      f'{module} ({count} tensors)' if count > 1 else module
      for module, count in sorted(modules.items())
    )

  @property
  def known_settings(self) -> settings_lib.Settings:
    """The settings; if the file does not say, by its tensors and the files beside it.

    What neither says is assumed: images of ImageNet, and heads of 64 channels.

    Raises:
      ValueError: it is not known which network it is or how gray images were
        normalised, or the network is not one that there is.
    """
    if self.settings:
      return self.settings
    if not self.layout.infer:
      raise ValueError(
        f'{self.path} does not say which network it is; only files that '
        'experiments.export has written do'
      )
    found = self.layout.infer(self.tensors, self.described.num_heads)
    mean, std = self.described.mean, self.described.std
    is_described = bool(mean and std) and len(mean) == len(std) == found.num_channels
    if not is_described and found.num_channels != 3:
      raise ValueError(
        f'{self.path} does not say how its images of {found.num_channels} channels are '
        'normalised; only files that experiments.export has written do'
      )
    return settings_lib.Settings(
      found.encoder,
      found.options,
      crop_size=self.described.crop_size or _IMAGENET_CROP,
      mean=mean if is_described else _IMAGENET_MEAN,
      std=std if is_described else _IMAGENET_STD,
      description=f'{self.path}, in the layout of {self.layout.name}; images as '
      + ('the files beside it say' if is_described else _GUESSED),
      evaluation_crop=self.described.evaluation_crop,
      interpolation='bicubic_antialias',  # As other libraries resize.
    )


def locate(path: storage.Path) -> storage.Path | None:
  """The file of weights that a path names: itself, or that of a directory.

  Returns:
    None if the path names something else.

  Raises:
    ValueError: it is a file that could run code, or is not there; or a directory that
      holds weights under another name, and no run.
  """
  if path.suffix in _PICKLES and not storage.is_directory(path):
    raise ValueError(
      f'{path} is of a kind that runs code when it is read; convert it where you '
      f'trust it, with PyTorch: {conversion(path)}'
    )
  if path.suffix == '.safetensors':
    if not storage.is_file(path):
      raise ValueError(f'there is no file {path}')
    return path
  if storage.is_file(path / WEIGHTS_NAME):
    return path / WEIGHTS_NAME
  if storage.is_directory(path):
    _check_no_other_weights(path)
  return None


def _check_no_other_weights(directory: storage.Path) -> None:
  """Checks that a directory that is no run holds no weights under another name.

  Raises:
    ValueError: it does.
  """
  names = sorted(storage.names(directory))
  if 'checkpoints' in names:
    return
  tensors = [name for name in names if name.endswith('.safetensors')]
  pickles = [name for name in names if name.endswith(_PICKLES)]
  if len(tensors) > 1:
    raise ValueError(
      f'{directory} has weights in {len(tensors)} files, {tensors[0]} and others, of '
      f'which none is {WEIGHTS_NAME}; write them into one, or name the one to read'
    )
  if tensors:
    raise ValueError(
      f'{directory} has no {WEIGHTS_NAME}; name its file, {directory / tensors[0]}'
    )
  if pickles:
    raise ValueError(
      f'{directory} has no {WEIGHTS_NAME}, and {pickles[0]} is of a kind that runs '
      f'code when it is read; convert it where you trust it, with PyTorch: '
      f'{conversion(directory / pickles[0])}'
    )


def _check_finite(path: storage.Path, tensors: Mapping[str, np.ndarray]) -> None:
  for name, x in tensors.items():
    is_finite = np.isfinite(np.asarray(x, np.float32))  # NumPy's bfloat16 cannot tell.
    if not is_finite.all():
      raise ValueError(
        f'{path}: {name} has {(~is_finite).sum()} of {x.size} values that are not '
        'finite; use weights of an earlier step'
      )


def conversion(path: storage.Path) -> str:
  """The command that makes a safetensors file of a PyTorch pickle."""
  # Checkpoints of some libraries are dicts in dicts, with the optimiser among them.
  return (
    'python -c "import torch, safetensors.torch as s; '
    "flat = lambda x, p='': {k: v for n in x for k, v in "
    "(flat(x[n], p + str(n) + '.') if isinstance(x[n], dict) else "
    '{p + str(n): x[n]}).items()}; '
    f"x = torch.load('{path}', map_location='cpu', weights_only=True); "
    "t = {k: v.clone().contiguous() for k, v in flat(x.get('state_dict', x)).items() "
    'if torch.is_tensor(v)}; '
    "assert t, 'no tensors in ' + str(list(x)); "
    f"s.save_file(t, '{path.with_suffix('.safetensors')}')\""
  )


def read(path: storage.Path) -> EncoderFile:
  """Reads the encoder of a file, in whichever layout it is.

  Raises:
    ValueError: it is no such file, has no encoder, or several, or a tensor is not
      finite.
  """
  try:
    with (
      storage.local(path) as local,
      safetensors.safe_open(local, framework='np') as file,
    ):
      metadata = file.metadata() or {}
      names = list(file.keys())
      layout, prefix = families.detect(names)
      is_of_encoder = lambda name: (
        name.startswith(prefix) and layout.part.match(name.removeprefix(prefix))
      )
      # Only the encoder is read: a file may hold much more.
      tensors = {
        name.removeprefix(prefix): file.get_tensor(name)
        for name in names
        if is_of_encoder(name)
      }
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} is no whole safetensors file: {error}') from error
  except ValueError as error:
    raise ValueError(f'{path} cannot be used: {error}') from error
  _check_finite(path, tensors)
  settings, described = None, described_lib.Described()
  if _METADATA in metadata:
    settings = settings_lib.from_json(metadata[_METADATA])
  else:
    described = described_lib.beside(path)
  others = [name for name in names if not is_of_encoder(name)]
  return EncoderFile(path, layout, tensors, others, settings, described)


def write(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  settings: settings_lib.Settings,
) -> None:
  """Writes tensors and the settings of their encoder.

  'format' is what Hugging Face's library looks for.

  Raises:
    ValueError: a tensor is not finite.
  """
  _check_finite(path, tensors)
  metadata = {'format': 'pt', _METADATA: settings_lib.to_json(settings)}
  contiguous = {name: np.asarray(x, order='C') for name, x in tensors.items()}
  # Not `save_file`: its file may be read by its owner alone, whatever the umask.
  path.write_bytes(safetensors.numpy.save(contiguous, metadata=metadata))
