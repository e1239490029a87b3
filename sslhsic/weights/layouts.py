"""How libraries name the weights of a ResNet, and how they lay them out.

| here                     | torchvision, timm | Hugging Face                    |
|--------------------------|-------------------|---------------------------------|
| encoder/stem_conv        | conv1             | embedder.embedder.convolution   |
| encoder/stem_batchnorm   | bn1               | embedder.embedder.normalization |
| encoder/group_G/block_B/ | layer{G+1}.B.     | encoder.stages.G.layers.B.      |
| … conv_I                 | … conv{I+1}       | … layer.I.convolution           |
| … batchnorm_I            | … bn{I+1}         | … layer.I.normalization         |
| … shortcut_conv          | … downsample.0    | … shortcut.convolution          |
| … shortcut_batchnorm     | … downsample.1    | … shortcut.normalization        |

PyTorch's convolutions are [out, in, h, w], ours [h, w, in, out]. Our batch statistics
are moving averages without bias from where they start (Haiku's 'hidden' and 'counter'
say how far they are); PyTorch's are not corrected, and have the averages alone.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import haiku as hk
import numpy as np

Tensors = dict[str, np.ndarray]
Tree = Mapping[str, Mapping[str, np.ndarray]]  # Module -> name -> value.

# A counter at which nothing is left of the correction of a moving average.
_SETTLED = np.int32(1_000_000)


class Layout(NamedTuple):
  """How the tensors of an encoder are named in a file.

  Attributes:
    name: of the layout.
    anchors: names that show where an encoder is: its first two convolutions.
    part: how the names of an encoder's tensors begin, a pattern.
    convolution: the name of a convolution in a block: a pattern of group, block and
      number of the convolution.
    tensor: the name in a file of a value (module, name) of ours; None: it has none.
      A projector is in a file of its own.
    is_haiku: whether values are laid out as ours, else as PyTorch's.
  """

  name: str
  anchors: tuple[str, str]
  part: re.Pattern
  convolution: re.Pattern
  tensor: Callable[[str, str], str | None]
  is_haiku: bool = False


class _Place(NamedTuple):
  """Of a layer: group and block are None in the stem, index is None in a shortcut."""

  group: int | None
  block: int | None
  index: int | None
  is_conv: bool


_LAYER = re.compile(
  r'encoder/(?:group_(\d+)/block_(\d+)/)?(?:stem_|shortcut_)?'
  r'(?:conv|batchnorm)(?:_(\d+))?'
)
# In a torch.nn.Sequential of Linear, BatchNorm1d, ReLU and Linear.
_PROJECTOR = {
  'projector/linear_0': '0',
  'projector/batchnorm': '1',
  'projector/linear_1': '3',
}


def _named_as(layer_name: Callable[[_Place], str]) -> Callable[[str, str], str | None]:
  def tensor(module: str, name: str) -> str | None:
    layer, _, statistic = module.partition('/~/')
    attribute = _attribute(statistic, name)
    if not attribute:
      return None
    return f'{_PROJECTOR.get(layer) or layer_name(_place(layer))}.{attribute}'

  return tensor


def _attribute(statistic: str, name: str) -> str | None:
  """What PyTorch calls a value of a layer; None if it has no such value."""
  return {
    ('', 'w'): 'weight',
    ('', 'b'): 'bias',
    ('', 'scale'): 'weight',
    ('', 'offset'): 'bias',
    ('mean_ema', 'average'): 'running_mean',
    ('var_ema', 'average'): 'running_var',
    ('mean_ema', 'counter'): 'num_batches_tracked',
  }.get((statistic, name))


def _place(layer: str) -> _Place:
  numbers = (x and int(x) for x in _LAYER.fullmatch(layer).groups())
  return _Place(*numbers, is_conv='conv' in layer.rpartition('/')[2])


def _torchvision(place: _Place) -> str:
  if place.group is None:
    return 'conv1' if place.is_conv else 'bn1'
  block = f'layer{place.group + 1}.{place.block}'
  if place.index is None:
    return f'{block}.downsample.{0 if place.is_conv else 1}'
  return f'{block}.{"conv" if place.is_conv else "bn"}{place.index + 1}'


def _huggingface(place: _Place) -> str:
  kind = 'convolution' if place.is_conv else 'normalization'
  if place.group is None:
    return f'embedder.embedder.{kind}'
  layer = 'shortcut' if place.index is None else f'layer.{place.index}'
  return f'encoder.stages.{place.group}.layers.{place.block}.{layer}.{kind}'


HAIKU = Layout(
  name='haiku',
  anchors=('encoder/stem_conv/w', 'encoder/group_0/block_0/conv_0/w'),
  part=re.compile(r'encoder/'),
  convolution=re.compile(r'encoder/group_(\d+)/block_(\d+)/conv_(\d+)/w'),
  tensor=lambda module, name: f'{module}/{name}',
  is_haiku=True,
)
TORCHVISION = Layout(
  name='torchvision',
  anchors=('conv1.weight', 'layer1.0.conv1.weight'),
  part=re.compile(r'(conv1|bn1|layer\d+)\.'),
  convolution=re.compile(r'layer(\d+)\.(\d+)\.conv(\d+)\.weight'),
  tensor=_named_as(_torchvision),
)
HUGGINGFACE = Layout(
  name='huggingface',
  anchors=(
    'embedder.embedder.convolution.weight',
    'encoder.stages.0.layers.0.layer.0.convolution.weight',
  ),
  part=re.compile(r'(embedder|encoder)\.'),
  convolution=re.compile(
    r'encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.weight'
  ),
  tensor=_named_as(_huggingface),
)
LAYOUTS = (HAIKU, TORCHVISION, HUGGINGFACE)

# Networks that follow the trained one, or are followed, of methods that keep two.
_FOLLOWERS = re.compile(r'(^|[._])(encoder_k|target|momentum|teacher|ema|key)[._]')


def detect(names: Iterable[str]) -> tuple[Layout, str]:
  """The layout of the encoder in a file, and what is before its names.

  Where there are a trained network and one that follows it, as in files of MoCo or
  BYOL, it is the trained one.

  Raises:
    ValueError: there is no encoder, or it is not clear which.
  """
  names = set(names)
  found = {
    name.removesuffix(layout.anchors[0]): layout
    for layout in LAYOUTS
    for name in names
    if name.endswith(layout.anchors[0])
    and name.removesuffix(layout.anchors[0]) + layout.anchors[1] in names
  }
  if not found:
    raise ValueError(
      'no ResNet in the layout of torchvision, timm, Hugging Face or this project; '
      f'there are {", ".join(sorted(names)[:5])}{", …" * (len(names) > 5)}'
    )
  trained = [prefix for prefix in found if not _FOLLOWERS.search(prefix)]
  if len(trained) == 1 or len(found) == 1:
    prefix = (trained or list(found))[0]
    return found[prefix], prefix
  raise ValueError(
    f'{len(found)} encoders, {", ".join(sorted(found))}; write a file with one of them'
  )


def names(layout: Layout, *trees: Tree) -> set[str]:
  """Of the tensors that a file of this layout has of an encoder; see `to_tensors`."""
  values = [x for tree in trees for x in hk.data_structures.traverse(tree)]
  return {layout.tensor(module, name) for module, name, _ in values} - {None}


def to_tensors(layout: Layout, *trees: Tree) -> Tensors:
  """The tensors of an encoder, or of a projector, as a file of this layout has them.

  Args:
    layout: of the file.
    *trees: parameters and batch statistics of modules named encoder/… or projector/….
  """
  tensors = {}
  for tree in trees:
    for module, name, value in hk.data_structures.traverse(tree):
      tensor = layout.tensor(module, name)
      if tensor is not None:
        value = np.asarray(value)
        tensors[tensor] = value if layout.is_haiku else _to_torch(name, value)
  return tensors


def from_tensors(layout: Layout, tensors: Tensors, like: Tree) -> Tree:
  """The values of an encoder that a file has.

  Args:
    layout: of the file.
    tensors: by their names.
    like: a tree of the wanted modules and names.

  Returns:
    As `like`, without what the file has not.
  """
  values = {}
  for module, name, _ in hk.data_structures.traverse(like):
    # Of moving averages, the state that follows from PyTorch's.
    wanted = 'average' if name == 'hidden' and not layout.is_haiku else name
    tensor = tensors.get(layout.tensor(module, wanted))
    if name == 'counter' and not layout.is_haiku:
      values.setdefault(module, {})[name] = _SETTLED
    elif tensor is not None:
      value = tensor if layout.is_haiku else _from_torch(name, tensor)
      values.setdefault(module, {})[name] = value
  return values


def _to_torch(name: str, value: np.ndarray) -> np.ndarray:
  """A value as PyTorch lays it out."""
  if name == 'counter':
    return np.asarray(value, np.int64)
  if name == 'w':
    axes = (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
    return np.ascontiguousarray(value.transpose(axes))
  return value.reshape(-1)


def _from_torch(name: str, tensor: np.ndarray) -> np.ndarray:
  """Undoes `_to_torch`, in an encoder; float32."""
  tensor = tensor.astype(np.float32)
  if tensor.ndim == 4:
    return np.ascontiguousarray(tensor.transpose(2, 3, 1, 0))
  return tensor.reshape(1, 1, 1, -1)
