"""Names and layouts of an encoder's weights in files, here and in other libraries.

PyTorch's convolutions are [out, in, h, w], ours [h, w, in, out]; its linear layers are
[out, in], ours [in, out]. Our batch statistics are moving averages without bias from
where they start (Haiku's 'hidden' and 'counter' say how far they are); PyTorch's are
not corrected, and have the averages alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import haiku as hk
import numpy as np

from sslhsic.weights.settings import Settings

Tensors = dict[str, np.ndarray]
Tree = Mapping[str, Mapping[str, chex.Array]]  # Module -> name -> value.

# A counter at which nothing is left of the correction of a moving average.
_SETTLED = np.int32(1_000_000)


class Inferred(NamedTuple):
  """An encoder as its tensors show it.

  Attributes:
    encoder, options: the network, see `networks.create`.
    num_channels: of its images.
  """

  encoder: str
  options: dict[str, Any]
  num_channels: int


class Layout(NamedTuple):
  """How the tensors of an encoder are named in a file.

  Attributes:
    name: of the layout.
    tensor: the name in a file of a value (module, name) of ours; None: it has none.
      A projector is in a file of its own.
    part: how the names of an encoder's tensors begin, a pattern.
    anchors: names that show where an encoder is, such as its first two convolutions.
    infer: finds the network by the tensors and the number of heads of attention, where
      that is known; raises a ValueError where it is none of ours. None: only the
      settings of the file say which it is.
    is_haiku: whether values are laid out as ours, else as PyTorch's.
    pack: turns tensors named by `tensor` into those of a file, where they do not
      correspond one to one, such as query, key and value in one tensor or three.
    unpack: undoes `pack`.
    computed: of the tensors of a file, names of those that our network may compute and
      so have no parameter for, such as fixed positions.
  """

  name: str
  tensor: Callable[[str, str], str | None]
  part: re.Pattern
  anchors: tuple[str, ...] = ()
  infer: Callable[[Tensors, int | None], Inferred] | None = None
  is_haiku: bool = False
  pack: Callable[[Tensors], Tensors] = dict
  unpack: Callable[[Tensors], Tensors] = dict
  computed: Callable[[Tensors], set[str]] = lambda _: set()


class Family(NamedTuple):
  """What is known of the encoders of one class elsewhere.

  Attributes:
    layouts: in which they are found in files.
    formats: the layout of every format that they are exported in, besides 'haiku'.
    config_files: of (format, settings), to JSON values by the name of their file;
      raises a ValueError if the library has no such network.
    usage: of (format, settings), to lines of Python that embed with the export, which
      is in DIR; none if the library cannot build the network.
    computed: of settings, values that our network computes and other libraries keep as
      parameters.
  """

  layouts: tuple[Layout, ...] = ()
  formats: Mapping[str, Layout] = {}
  config_files: Callable[[str, Settings], dict[str, Any]] = lambda *_: {}
  usage: Callable[[str, Settings], list[str]] = lambda *_: []
  computed: Callable[[Settings], Tree] = lambda _: {}


HAIKU = Layout(
  name='haiku',
  tensor=lambda module, name: f'{module}/{name}',
  part=re.compile(r'encoder/'),
  is_haiku=True,
)

# In a torch.nn.Sequential of Linear, BatchNorm1d, ReLU and Linear.
_PROJECTOR = {
  'projector/linear_0': '0',
  'projector/batchnorm': '1',
  'projector/linear_1': '3',
}


def named_as_in_pytorch(
  layer_name: Callable[[str], str],
) -> Callable[[str, str], str | None]:
  """The `tensor` of a layout whose layers keep their values as PyTorch's do.

  Args:
    layer_name: of the name of a layer of ours, encoder/…, to its name there.
  """

  def tensor(module: str, name: str) -> str | None:
    layer, _, statistic = module.partition('/~/')
    attribute = _ATTRIBUTES.get((statistic, name))
    if not attribute:
      return None
    return f'{_PROJECTOR.get(layer) or layer_name(layer)}.{attribute}'

  return tensor


# PyTorch's names for the values of a layer.
_ATTRIBUTES = {
  ('', 'w'): 'weight',
  ('', 'b'): 'bias',
  ('', 'scale'): 'weight',
  ('', 'offset'): 'bias',
  ('mean_ema', 'average'): 'running_mean',
  ('var_ema', 'average'): 'running_var',
  ('mean_ema', 'counter'): 'num_batches_tracked',
}


def names(layout: Layout, *trees: Tree) -> set[str]:
  """Names that the values of an encoder have in a file, before `layout.pack`."""
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
  return layout.pack(tensors)


def from_tensors(layout: Layout, tensors: Tensors, like: Tree) -> Tree:
  """The values of an encoder that a file has.

  Args:
    layout: of the file.
    tensors: by their names.
    like: a tree of the wanted modules and names.

  Returns:
    As `like`, without what the file has not.
  """
  values: dict[str, dict[str, Any]] = {}
  tensors = layout.unpack(tensors)
  for module, name, initial in hk.data_structures.traverse(like):
    # Of moving averages, the state that follows from PyTorch's.
    wanted = 'average' if name == 'hidden' and not layout.is_haiku else name
    tensor = tensors.get(layout.tensor(module, wanted))
    if name == 'counter' and not layout.is_haiku:
      values.setdefault(module, {})[name] = _SETTLED
    elif tensor is not None:
      value = tensor if layout.is_haiku else _from_torch(name, tensor, initial.ndim)
      values.setdefault(module, {})[name] = value
  return values


def _to_torch(name: str, value: np.ndarray) -> np.ndarray:
  """A value as PyTorch lays it out."""
  if name == 'counter':
    return np.asarray(value, np.int64)
  if name == 'w':
    # [h, w, in, out] -> [out, in, h, w], or [in, out] -> [out, in].
    axes = (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
    return np.ascontiguousarray(value.transpose(axes))
  if name in ('b', 'scale', 'offset', 'average'):
    return value.reshape(-1)
  return value


def _from_torch(name: str, tensor: np.ndarray, ndim: int) -> np.ndarray:
  """Undoes `_to_torch`, for a value of so many axes; float32."""
  tensor = tensor.astype(np.float32)
  if name == 'w' and tensor.ndim in (2, 4):
    axes = (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
    return np.ascontiguousarray(tensor.transpose(axes))
  # Haiku's batch norm keeps the axes that it averages over: [C] -> [1, 1, 1, C].
  return tensor.reshape((1,) * (ndim - tensor.ndim) + tensor.shape)
