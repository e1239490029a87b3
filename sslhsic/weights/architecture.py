"""Which ResNet it is: by its name here, by tensors of a file, in other libraries."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sslhsic.networks import resnet
from sslhsic.weights import layouts

_STEMS = {7: 'imagenet', 3: 'small'}  # By the size of the kernel.


class Architecture(NamedTuple):
  """Shape of a network; see `resnet.ResNet`. Channels are those with the width."""

  blocks_per_group: tuple[int, ...]
  channels_per_group: tuple[int, ...]
  bottleneck: bool
  stem: str

  @property
  def stem_channels(self) -> int:
    """Channels of the first convolution."""
    return self.channels_per_group[0] // (4 if self.bottleneck else 1)

  @property
  def stock_name(self) -> str | None:
    """The name of this network in other libraries; None if they have none."""
    names = [name for name in resnet.PRESETS if of(name, {}) == self]
    return names[0] if names and self.stem == 'imagenet' else None


def of(encoder: str, options: Mapping[str, Any]) -> Architecture:
  """The architecture that a name and options are of."""
  settings = {'stem': 'imagenet', 'width': 1, **resnet.PRESETS[encoder], **options}
  return Architecture(
    tuple(settings['blocks_per_group']),
    tuple(settings['width'] * x for x in settings['channels_per_group']),
    settings['bottleneck'],
    settings['stem'],
  )


def to_options(architecture: Architecture) -> tuple[str, dict[str, Any]]:
  """Undoes `of`: a name, and the options in which the network differs."""
  for name in resnet.PRESETS:
    for stem in _STEMS.values():
      options = {} if of(name, {}).stem == stem else {'stem': stem}
      if of(name, options) == architecture:
        return name, options
  return 'resnet50', architecture._asdict()


def infer(layout: layouts.Layout, tensors: layouts.Tensors) -> Architecture:
  """The architecture of the encoder whose tensors these are.

  Raises:
    ValueError: it is none of `resnet.ResNet`.
  """
  out_axis, side_axis = (3, 0) if layout.is_haiku else (0, 2)
  matches = [(layout.convolution.fullmatch(name), name) for name in tensors]
  places = {
    tuple(int(x) for x in match.groups()): tensors[name].shape[out_axis]
    for match, name in matches
    if match
  }
  kernel_size = tensors[layout.anchors[0]].shape[side_axis]
  if kernel_size not in _STEMS:
    raise ValueError(f'a first convolution of side {kernel_size}; 7 and 3 are known')
  groups, _, numbers = (sorted(set(x)) for x in zip(*places, strict=True))
  blocks = [np.unique([b for g, b, _ in places if g == group]) for group in groups]
  last = numbers[-1]
  return Architecture(
    tuple(map(len, blocks)),
    tuple(places[group, 0, last] for group in groups),
    len(numbers) == 3,
    _STEMS[kernel_size],
  )
