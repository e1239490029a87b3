"""ResNets elsewhere: in files, torchvision, timm and Hugging Face's transformers.

| here                     | torchvision, timm | Hugging Face                    |
|--------------------------|-------------------|---------------------------------|
| encoder/stem_conv        | conv1             | embedder.embedder.convolution   |
| encoder/stem_batchnorm   | bn1               | embedder.embedder.normalization |
| encoder/group_G/block_B/ | layer{G+1}.B.     | encoder.stages.G.layers.B.      |
| … conv_I                 | … conv{I+1}       | … layer.I.convolution           |
| … batchnorm_I            | … bn{I+1}         | … layer.I.normalization         |
| … shortcut_conv          | … downsample.0    | … shortcut.convolution          |
| … shortcut_batchnorm     | … downsample.1    | … shortcut.normalization        |
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sslhsic.networks import resnet
from sslhsic.weights import layouts
from sslhsic.weights.settings import Settings, resized_side

_STEMS = {7: 'imagenet', 3: 'small'}  # By the size of the kernel.
_DEFAULTS = {
  'stem': 'imagenet',
  'width': 1,
  'project_first_shortcut': False,
  'output_stride': None,
  'dilate_first_block': False,
}


# Which network it is


class Architecture(NamedTuple):
  """Shape of a network; see `networks.ResNet`. Channels are those with the width."""

  blocks_per_group: tuple[int, ...]
  channels_per_group: tuple[int, ...]
  bottleneck: bool
  stem: str
  project_first_shortcut: bool  # Of basic blocks, which need no projection there.
  is_dilated: bool = False  # In place of strides, which no parameter shows.

  @property
  def stem_channels(self) -> int:
    """Channels of the first convolution."""
    # Bottleneck blocks give out four times the channels that they compute with.
    return self.channels_per_group[0] // (4 if self.bottleneck else 1)

  @property
  def stock_name(self) -> str | None:
    """The name of this network in other libraries; None if they have none."""
    names = [name for name in resnet.PRESETS if architecture(name, {}) == self]
    return names[0] if names and self.stem == 'imagenet' else None


def architecture(encoder: str, options: Mapping[str, Any]) -> Architecture:
  """The architecture that the name of a ResNet and its options are of."""
  settings = {**_DEFAULTS, **resnet.PRESETS[encoder], **options}
  return Architecture(
    tuple(settings['blocks_per_group']),
    tuple(settings['width'] * x for x in settings['channels_per_group']),
    settings['bottleneck'],
    settings['stem'],
    settings['project_first_shortcut'] and not settings['bottleneck'],
    bool(settings['output_stride'] or settings['dilate_first_block']),
  )


def _to_options(found: Architecture) -> tuple[str, dict[str, Any]]:
  """Undoes `architecture`: a name, and the options in which the network differs."""
  for name in resnet.PRESETS:
    options = {'stem': found.stem, 'project_first_shortcut': True}
    # Options that change nothing are left out.
    if architecture(name, {}).stem == found.stem:
      del options['stem']
    if not found.project_first_shortcut:
      del options['project_first_shortcut']
    if architecture(name, options) == found:
      return name, options
  # No preset fits; the options override all of this one.
  options = found._asdict()
  del options['is_dilated']  # No tensor shows it.
  return 'resnet50', options


def _infer(
  stem: str,
  shortcut: str,
  convolution: re.Pattern,
  tensors: layouts.Tensors,
  num_heads: int | None = None,
  *,
  is_haiku: bool,
) -> layouts.Inferred:
  """See `layouts.Layout.infer`.

  Args:
    stem: the name of the first convolution.
    shortcut: the name of the convolution in the first shortcut, if it is projected.
    convolution: the name of a convolution in a block: a pattern of group, block and
      number of the convolution.
    tensors: of the encoder.
    num_heads: not used, as there is no attention.
    is_haiku: whether they are laid out as ours.
  """
  del num_heads
  out_axis, in_axis, side_axis = (3, 2, 0) if is_haiku else (0, 1, 2)
  matches = [(convolution.fullmatch(name), name) for name in tensors]
  # (group, block, convolution) -> its output channels.
  places = {
    tuple(int(x) for x in match.groups()): tensors[name].shape[out_axis]
    for match, name in matches
    if match
  }
  kernel_size = tensors[stem].shape[side_axis]
  if kernel_size not in _STEMS:
    raise ValueError(f'a first convolution of side {kernel_size}; 7 and 3 are known')
  groups, _, numbers = (sorted(set(x)) for x in zip(*places, strict=True))
  blocks = [np.unique([b for g, b, _ in places if g == group]) for group in groups]
  last = numbers[-1]
  found = Architecture(
    tuple(map(len, blocks)),
    # The last convolution of a block has the channels of its group.
    tuple(places[group, 0, last] for group in groups),
    len(numbers) == 3,
    _STEMS[kernel_size],
    len(numbers) == 2 and shortcut in tensors,
  )
  return layouts.Inferred(*_to_options(found), tensors[stem].shape[in_axis])


# Names of its tensors


class _Place(NamedTuple):
  """Of a layer: group and block are None in the stem, index is None in a shortcut."""

  group: int | None
  block: int | None
  index: int | None  # type: ignore[assignment]  # Not the method of tuples.
  is_conv: bool


_LAYER = re.compile(
  r'encoder/(?:group_(\d+)/block_(\d+)/)?(?:stem_|shortcut_)?'
  r'(?:conv|batchnorm)(?:_(\d+))?'
)


def _place(layer: str) -> _Place:
  group, block, index = (
    None if x is None else int(x) for x in _LAYER.fullmatch(layer).groups()
  )
  return _Place(group, block, index, is_conv='conv' in layer.rpartition('/')[2])


def _torchvision(layer: str) -> str:
  place = _place(layer)
  if place.group is None:
    return 'conv1' if place.is_conv else 'bn1'
  block = f'layer{place.group + 1}.{place.block}'
  if place.index is None:
    return f'{block}.downsample.{0 if place.is_conv else 1}'
  return f'{block}.{"conv" if place.is_conv else "bn"}{place.index + 1}'


def _huggingface(layer: str) -> str:
  place = _place(layer)
  kind = 'convolution' if place.is_conv else 'normalization'
  if place.group is None:
    return f'embedder.embedder.{kind}'
  layer = 'shortcut' if place.index is None else f'layer.{place.index}'
  return f'encoder.stages.{place.group}.layers.{place.block}.{layer}.{kind}'


def _layout(
  name: str, anchors: tuple[str, str], shortcut: str, convolution: str, **fields: Any
) -> layouts.Layout:
  """A layout; `anchors` are the first two convolutions, `shortcut` as of `_infer`."""
  is_haiku = fields.get('is_haiku', False)
  infer = functools.partial(
    _infer, anchors[0], shortcut, re.compile(convolution), is_haiku=is_haiku
  )
  return layouts.Layout(name=name, anchors=anchors, infer=infer, **fields)


HAIKU = _layout(
  'haiku',
  ('encoder/stem_conv/w', 'encoder/group_0/block_0/conv_0/w'),
  'encoder/group_0/block_0/shortcut_conv/w',
  r'encoder/group_(\d+)/block_(\d+)/conv_(\d+)/w',
  tensor=layouts.HAIKU.tensor,
  part=layouts.HAIKU.part,
  is_haiku=True,
)
TORCHVISION = _layout(
  'torchvision',
  ('conv1.weight', 'layer1.0.conv1.weight'),
  'layer1.0.downsample.0.weight',
  r'layer(\d+)\.(\d+)\.conv(\d+)\.weight',
  tensor=layouts.named_as_in_pytorch(_torchvision),
  part=re.compile(r'(conv1|bn1|layer\d+)\.'),
)
HUGGINGFACE = _layout(
  'huggingface',
  (
    'embedder.embedder.convolution.weight',
    'encoder.stages.0.layers.0.layer.0.convolution.weight',
  ),
  'encoder.stages.0.layers.0.shortcut.convolution.weight',
  r'encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.weight',
  tensor=layouts.named_as_in_pytorch(_huggingface),
  part=re.compile(r'(embedder|encoder)\.'),
)


# Files next to its weights


def _config_files(format_name: str, settings: Settings) -> dict[str, Any]:
  """See `layouts.Family.config_files`."""
  found = architecture(settings.encoder, settings.encoder_options)
  if format_name == 'timm':
    return {'config.json': _timm(found, settings)}
  if format_name == 'huggingface':
    return {'config.json': _transformers(found, settings)}
  return {}


def _timm(found: Architecture, settings: Settings) -> dict[str, Any]:
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
      'crop_pct': size / resized_side(settings) if settings.crop_size else 1.0,
      'crop_mode': 'center',
      'mean': settings.mean,
      'std': settings.std,
      'num_classes': 0,
      'first_conv': 'conv1',
      'classifier': 'fc',
    },
  }


def _transformers(found: Architecture, settings: Settings) -> dict[str, Any]:
  if found.stem != 'imagenet':
    raise ValueError(
      "Hugging Face's ResNet has a stem of a 7×7 convolution and a max-pool, "
      f"{settings.encoder} here has a stem '{found.stem}'; use the format 'torchvision'"
    )
  if found.is_dilated:
    raise ValueError(
      "Hugging Face's ResNet has no dilation, "
      f'{settings.encoder} with {settings.encoder_options} has; use the format '
      "'torchvision', and build the network yourself"
    )
  if found.project_first_shortcut:
    raise ValueError(
      "Hugging Face's ResNet does not project its first shortcut, "
      f"{settings.encoder} here does; use the format 'torchvision'"
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


# How to load it


def _usage(format_name: str, settings: Settings) -> list[str]:
  """See `layouts.Family.usage`."""
  if format_name == 'timm':
    return [
      'import timm',
      '',
      "model = timm.create_model('local-dir:DIR', pretrained=True)",
      'embeddings = model.eval()(images)  # [n, 3, h, w] -> [n, c]',
    ]
  if format_name == 'huggingface':
    return [
      'from transformers import AutoImageProcessor, AutoModel',
      '',
      "processor = AutoImageProcessor.from_pretrained('DIR')",
      "model = AutoModel.from_pretrained('DIR').eval()",
      "inputs = processor(picture, return_tensors='pt')",
      'embeddings = model(**inputs).pooler_output.flatten(1)  # [n, c]',
    ]
  return _usage_in_torchvision(settings)


def _usage_in_torchvision(settings: Settings) -> list[str]:
  found = architecture(settings.encoder, settings.encoder_options)
  # The stock network that the changes below turn into this one.
  name = found._replace(stem='imagenet', project_first_shortcut=False).stock_name
  channels = len(settings.mean)
  if not name or name == 'resnet200' or (channels != 3 and found.stem == 'imagenet'):
    return []
  changes = []
  if found.stem == 'small':
    changes = [
      f'model.conv1 = torch.nn.Conv2d({channels}, 64, 3, padding=1, bias=False)',
      'model.maxpool = torch.nn.Identity()',
    ]
  if found.project_first_shortcut:
    changes += [
      'model.layer1[0].downsample = torch.nn.Sequential(',
      '    torch.nn.Conv2d(64, 64, 1, bias=False), torch.nn.BatchNorm2d(64)',
      ')',
    ]
  return [
    'import torch',
    'import torchvision',
    'from safetensors.torch import load_file',
    '',
    f'model = torchvision.models.{name}()',
    'model.fc = torch.nn.Identity()',
    *changes,
    "model.load_state_dict(load_file('DIR/model.safetensors'))",
    'embeddings = model.eval()(images)  # [n, c, h, w] -> [n, c]',
  ]


FAMILY = layouts.Family(
  layouts=(HAIKU, TORCHVISION, HUGGINGFACE),
  formats={
    'torchvision': TORCHVISION,
    'timm': TORCHVISION,
    'huggingface': HUGGINGFACE,
  },
  config_files=_config_files,
  usage=_usage,
)
