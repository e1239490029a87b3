"""Vision Transformers elsewhere: in files, timm and Hugging Face's transformers.

| here                    | timm             | Hugging Face                           |
|-------------------------|------------------|----------------------------------------|
| encoder/patch_embedding | patch_embed.proj | embeddings.patch_embeddings.projection |
| encoder, class_token    | cls_token        | embeddings.cls_token                   |
| encoder, registers      | reg_token        |                                        |
| encoder, positions      | pos_embed        | embeddings.position_embeddings         |
| encoder/block_B/        | blocks.B.        | encoder.layer.B.                       |
| … layernorm_0           | … norm1          | … layernorm_before                     |
| … qkv                   | … attn.qkv       | … attention.attention.query, key, value|
| … projection            | … attn.proj      | … attention.output.dense               |
| … layernorm_1           | … norm2          | … layernorm_after                      |
| … linear_0              | … mlp.fc1        | … intermediate.dense                   |
| … linear_1              | … mlp.fc2        | … output.dense                         |
| encoder/layernorm       | norm             | layernorm                              |

There, class token and registers have positions, which here are a part of their values,
and fixed positions are parameters.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from sslhsic.networks import vit
from sslhsic.weights import layouts
from sslhsic.weights.layouts import Tensors
from sslhsic.weights.settings import Settings, resized_side

_DEFAULTS = {
  'mlp_ratio': 4,
  'positions': 'learned',
  'image_size': 224,
  'pooling': 'class',
  'num_registers': 0,
}
_HEAD_SIZE = 64  # Of ViT-Ti, -S, -B and -L; files do not say it.
_TIMM_SIZES = {192: 'tiny', 384: 'small', 768: 'base'}  # By width.


# Which network it is


def _infer(
  layout: layouts.Layout, tensors: Tensors, num_heads: int | None = None
) -> layouts.Inferred:
  """See `layouts.Layout.infer`; heads are assumed to have 64 channels."""
  is_fixed = bool(layout.computed(tensors))
  tensors = layout.unpack(tensors)
  of = lambda module, name: tensors.get(layout.tensor(module, name))
  kernel = of('encoder/patch_embedding', 'w')
  hidden = of('encoder/block_0/linear_0', 'w')
  if not layout.is_haiku:  # [out, in, h, w] -> [h, w, in, out].
    kernel, hidden = kernel.transpose(2, 3, 1, 0), hidden.transpose()
  patch_size, _, num_channels, width = kernel.shape
  if not num_heads and width % _HEAD_SIZE:
    raise ValueError(
      f'a Vision Transformer of width {width}, no multiple of {_HEAD_SIZE}: its number '
      'of heads is unknown; say it in a config.json beside model.safetensors, as '
      '{"num_attention_heads": N}'
    )
  depth = 0
  while of(f'encoder/block_{depth}/qkv', 'w') is not None:
    depth += 1
  positions, registers = of('encoder', 'positions'), of('encoder', 'registers')
  options = {
    'patch_size': patch_size,
    'width': width,
    'depth': depth,
    'num_heads': num_heads or width // _HEAD_SIZE,
    'mlp_ratio': hidden.shape[1] // width,
    'pooling': 'mean' if of('encoder', 'class_token') is None else 'class',
    'num_registers': 0 if registers is None else len(registers),
  }
  if is_fixed or positions is None:
    options['positions'] = 'sincos'
  else:
    options['image_size'] = len(positions) * patch_size
  return layouts.Inferred(*_named(options), num_channels)


def _named(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
  """The name of a preset, and the options in which a network differs from it."""
  differing = lambda name: {
    key: value
    for key, value in ({**_DEFAULTS, **options}).items()
    if {**_DEFAULTS, **vit.PRESETS[name]}[key] != value
  }
  name = min(vit.PRESETS, key=lambda name: len(differing(name)))
  return name, differing(name)


# Names of its tensors

_LAYER = re.compile(r'encoder/(?:block_(\d+)/)?(\w+)')


def _tensor(
  blocks: str, layers: Mapping[str, str], tokens: Mapping[str, str]
) -> Callable[[str, str], str | None]:
  """See `layouts.Layout.tensor`.

  Args:
    blocks: name of the blocks, of which B is 'BLOCKS.B'.
    layers: names of the layers, in a block without its name.
    tokens: names of class token, registers and positions.
  """

  def layer_name(layer: str) -> str:
    number, name = _LAYER.fullmatch(layer).groups()
    return layers[name] if number is None else f'{blocks}.{number}.{layers[name]}'

  of_layer = layouts.named_as_in_pytorch(layer_name)
  return lambda module, name: (
    (tokens.get(name) or None) if module == 'encoder' else of_layer(module, name)
  )


class _Tokens(NamedTuple):
  """Names of tensors that are not a layer's; '' for those that there cannot be."""

  class_token: str
  registers: str
  positions: str

  def before_patches(self, tensors: Tensors) -> list[str]:
    """Names of the tokens besides the patches, in order."""
    return [name for name in (self.class_token, self.registers) if name in tensors]

  def pack(self, tensors: Tensors) -> Tensors:
    """Tokens [k, c] -> [1, k, c], positions [g, g, c] -> [1, k + g², c]."""
    tensors = dict(tensors)
    before = self.before_patches(tensors)
    for name in before:
      tensors[name] = tensors[name][None]
    if self.positions in tensors:
      # 0 for the tokens that here have their position in their value.
      count = sum(tensors[name].shape[1] for name in before)
      of_patches = tensors[self.positions]
      of_patches = of_patches.reshape(-1, of_patches.shape[-1])
      tensors[self.positions] = np.pad(of_patches, ((count, 0), (0, 0)))[None]
    return tensors

  def unpack(self, tensors: Tensors) -> Tensors:
    """Undoes `pack`, and adds their positions to the tokens."""
    tensors = dict(tensors)
    before = self.before_patches(tensors)
    for name in before:
      tensors[name] = tensors[name][0]
    if self.positions not in tensors:
      return tensors
    positions = tensors[self.positions][0]
    count = sum(len(tensors[name]) for name in before)
    # Of timm's models with 'no_embed_class', patches alone have positions.
    if not _is_square(len(positions) - count):
      count = 0
    of_tokens, of_patches = positions[:count], positions[count:]
    for name in before if count else ():
      size = len(tensors[name])
      tensors[name] = tensors[name] + of_tokens[:size]
      of_tokens = of_tokens[size:]
    if _is_square(len(of_patches)):
      side = math.isqrt(len(of_patches))
      of_patches = of_patches.reshape(side, side, -1)
    tensors[self.positions] = of_patches
    return tensors

  def computed(self, tensors: Tensors) -> set[str]:
    """See `layouts.Layout.computed`: the positions, if they are the fixed ones."""
    positions = self.unpack(tensors).get(self.positions)
    if positions is None or positions.ndim != 3 or positions.shape[-1] % 4:
      return set()
    table = vit.sincos_positions(*positions.shape)
    is_fixed = np.allclose(positions.astype(np.float32), table, rtol=0, atol=1e-4)
    return {self.positions} if is_fixed else set()


def _is_square(number: int) -> bool:
  return number > 0 and math.isqrt(number) ** 2 == number


def _split_qkv(tensors: Tensors) -> Tensors:
  """Weights and biases of query, key and value, from the joint ones."""
  found: Tensors = {}
  for name, tensor in tensors.items():
    if _QKV in name:
      thirds = zip(_QKV.strip('()').split('|'), np.split(tensor, 3), strict=True)
      found |= {name.replace(_QKV, part): third for part, third in thirds}
    else:
      found[name] = tensor
  return found


def _join_qkv(tensors: Tensors) -> Tensors:
  """Undoes `_split_qkv`."""
  found = dict(tensors)
  for name in tensors:
    parts = [name.replace('.query.', f'.{x}.') for x in ('query', 'key', 'value')]
    if '.query.' in name and all(part in found for part in parts):
      joined = np.concatenate([found.pop(part) for part in parts])
      found[name.replace('.query.', f'.{_QKV}.')] = joined
  return found


def _layout(tensor: Callable[[str, str], str | None], **fields: Any) -> layouts.Layout:
  """A layout that finds the encoder by its first layers."""
  first = ('encoder/patch_embedding', 'w'), ('encoder/block_0/linear_0', 'w')
  made = layouts.Layout(
    tensor=tensor, anchors=tuple(tensor(*value) for value in first), **fields
  )
  return made._replace(infer=functools.partial(_infer, made))


# Three tensors there, one here.
_QKV = '(query|key|value)'
_OF_TIMM = _Tokens('cls_token', 'reg_token', 'pos_embed')
_OF_HUGGINGFACE = _Tokens('embeddings.cls_token', '', 'embeddings.position_embeddings')

HAIKU = _layout(
  layouts.HAIKU.tensor, name='haiku', part=layouts.HAIKU.part, is_haiku=True
)
TIMM = _layout(
  _tensor(
    'blocks',
    {
      'patch_embedding': 'patch_embed.proj',
      'layernorm_0': 'norm1',
      'qkv': 'attn.qkv',
      'projection': 'attn.proj',
      'layernorm_1': 'norm2',
      'linear_0': 'mlp.fc1',
      'linear_1': 'mlp.fc2',
      'layernorm': 'norm',
    },
    _OF_TIMM._asdict(),
  ),
  name='timm',
  # Also what we have not, such as 'norm_pre': the file is then of another network.
  part=re.compile('cls_token|reg_token|pos_embed|patch_embed|blocks|norm|fc_norm'),
  pack=_OF_TIMM.pack,
  unpack=_OF_TIMM.unpack,
  computed=_OF_TIMM.computed,
)
HUGGINGFACE = _layout(
  _tensor(
    'encoder.layer',
    {
      'patch_embedding': 'embeddings.patch_embeddings.projection',
      'layernorm_0': 'layernorm_before',
      'qkv': f'attention.attention.{_QKV}',
      'projection': 'attention.output.dense',
      'layernorm_1': 'layernorm_after',
      'linear_0': 'intermediate.dense',
      'linear_1': 'output.dense',
      'layernorm': 'layernorm',
    },
    _OF_HUGGINGFACE._asdict(),
  ),
  name='huggingface',
  part=re.compile(r'(embeddings|encoder|layernorm)\.'),
  pack=lambda tensors: _split_qkv(_OF_HUGGINGFACE.pack(tensors)),
  unpack=lambda tensors: _OF_HUGGINGFACE.unpack(_join_qkv(tensors)),
  computed=_OF_HUGGINGFACE.computed,
)


# Files next to its weights


def _computed(settings: Settings) -> layouts.Tree:
  """See `layouts.Family.computed`: fixed positions."""
  options = _options(settings)
  if options['positions'] != 'sincos':
    return {}
  side = _image_size(settings) // options['patch_size']
  table = vit.sincos_positions(side, side, options['width'])
  return {'encoder': {'positions': table}}


def _options(settings: Settings) -> dict[str, Any]:
  """All options of the network."""
  preset = vit.PRESETS[settings.encoder]
  return {**_DEFAULTS, **preset, **settings.encoder_options}


def _image_size(settings: Settings) -> int:
  """Side of the images that an export has positions for, in pixels."""
  options = _options(settings)
  # Fixed positions are made for the images of the evaluation.
  is_fixed = options['positions'] == 'sincos'
  return (is_fixed and settings.crop_size) or options['image_size']


def _config_files(format_name: str, settings: Settings) -> dict[str, Any]:
  """See `layouts.Family.config_files`."""
  if format_name == 'timm':
    return {'config.json': _timm(settings)}
  if format_name == 'huggingface':
    return {'config.json': _transformers(settings)}
  return {}


def _timm(settings: Settings) -> dict[str, Any]:
  options, channels = _options(settings), len(settings.mean)
  if channels not in (1, 3):
    raise ValueError(
      f'timm loads no weights for images of {channels} channels; use --format=haiku'
    )
  # Any of its networks serves, as all arguments follow; this one has the right name.
  size = _TIMM_SIZES.get(options['width'], 'base')
  is_mean = options['pooling'] == 'mean'
  crop_size = settings.crop_size or _image_size(settings)
  return {
    'architecture': f'vit_{size}_patch16_224',
    'num_classes': 0,
    'num_features': options['width'],
    'model_args': {
      'img_size': _image_size(settings),
      'patch_size': options['patch_size'],
      'in_chans': channels,
      'embed_dim': options['width'],
      'depth': options['depth'],
      'num_heads': options['num_heads'],
      'mlp_ratio': options['mlp_ratio'],
      'reg_tokens': options['num_registers'],
      'class_token': not is_mean,
      'global_pool': 'avg' if is_mean else 'token',
      'fc_norm': False,  # The norm is before the mean.
      'dynamic_img_size': True,
    },
    'pretrained_cfg': {
      'input_size': [channels, crop_size, crop_size],
      'fixed_input_size': False,
      'interpolation': 'bicubic',
      'crop_pct': crop_size / resized_side(settings) if settings.crop_size else 1.0,
      'crop_mode': 'center',
      'mean': settings.mean,
      'std': settings.std,
      'num_classes': 0,
      'first_conv': 'patch_embed.proj',
      'classifier': 'head',
    },
  }


def _transformers(settings: Settings) -> dict[str, Any]:
  options = _options(settings)
  if options['pooling'] != 'class' or options['num_registers']:
    raise ValueError(
      "Hugging Face's ViT has a class token and no registers, "
      f'{settings.encoder} here has pooling {options["pooling"]!r} and '
      f'{options["num_registers"]} registers; use --format=timm'
    )
  if settings.crop_size not in (0, _image_size(settings)):
    raise ValueError(
      f"Hugging Face's ViT takes images of {_image_size(settings)} px, the size of "
      f'its positions, and this encoder saw {settings.crop_size} px; use --format=timm'
    )
  return {
    'architectures': ['ViTModel'],
    'model_type': 'vit',
    'hidden_size': options['width'],
    'num_hidden_layers': options['depth'],
    'num_attention_heads': options['num_heads'],
    'intermediate_size': options['mlp_ratio'] * options['width'],
    'hidden_act': 'gelu',
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'layer_norm_eps': 1e-6,
    'qkv_bias': True,
    'image_size': _image_size(settings),
    'patch_size': options['patch_size'],
    'num_channels': len(settings.mean),
    'torch_dtype': 'float32',
  }


# How to load it


def _usage(format_name: str, settings: Settings) -> list[str]:
  """See `layouts.Family.usage`."""
  del settings  # All networks are loaded alike.
  if format_name == 'timm':
    return [
      'import timm',
      '',
      "model = timm.create_model('local-dir:DIR', pretrained=True)",
      'embeddings = model.eval()(images)  # [n, 3, h, w] -> [n, c]',
    ]
  return [
    'from transformers import AutoImageProcessor, AutoModel',
    '',
    "processor = AutoImageProcessor.from_pretrained('DIR')",
    "model = AutoModel.from_pretrained('DIR', add_pooling_layer=False).eval()",
    "inputs = processor(picture, return_tensors='pt')",
    'embeddings = model(**inputs).last_hidden_state[:, 0]  # [n, c]',
  ]


FAMILY = layouts.Family(
  layouts=(HAIKU, TIMM, HUGGINGFACE),
  formats={'timm': TIMM, 'huggingface': HUGGINGFACE},
  config_files=_config_files,
  usage=_usage,
  computed=_computed,
)
