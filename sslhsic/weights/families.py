"""Families of encoders by their class, and which of them has written a file.

An encoder without a family is read and written in our own layout only. Adding a family
is a file such as `weights.resnet`, and an entry in `FAMILIES`.
"""

import re
from collections.abc import Iterable

from sslhsic import networks
from sslhsic.weights import layouts, resnet, vit

FAMILIES: dict[type[networks.Encoder], layouts.Family] = {
  networks.ResNet: resnet.FAMILY,
  networks.ViT: vit.FAMILY,
}

# Networks that follow the trained one, or are followed, of methods that keep two.
_FOLLOWERS = re.compile(r'(^|[._])(encoder_k|target|momentum|teacher|ema|key)[._]')


def of(encoder: str) -> layouts.Family:
  """The family of an encoder, by its name.

  Raises:
    ValueError: there is no such encoder.
  """
  return FAMILIES.get(networks.class_of(encoder), layouts.Family())


def detect(names: Iterable[str]) -> tuple[layouts.Layout, str]:
  """The layout of the encoder in a file, and what is before its names.

  Where there are a trained network and one that follows it, as in files of MoCo or
  BYOL, it is the trained one.

  Raises:
    ValueError: there is no encoder, or it is not clear which.
  """
  names = set(names)
  # By prefix: files may have 'module.', 'encoder_q.' or nothing before the names.
  found = {
    name.removesuffix(layout.anchors[0]): layout
    for family in FAMILIES.values()
    for layout in family.layouts
    for name in names
    if name.endswith(layout.anchors[0])
    and {name.removesuffix(layout.anchors[0]) + x for x in layout.anchors} <= names
  }
  if not found and any(layouts.HAIKU.part.match(name) for name in names):
    return layouts.HAIKU, ''
  if not found:
    known = ', '.join(
      f'{network.__name__} in the layout of {", ".join(family.formats)}'
      for network, family in FAMILIES.items()
    )
    raise ValueError(
      f'no {known} or of this project; there are '
      f'{", ".join(sorted(names)[:5])}{", …" * (len(names) > 5)}'
    )
  trained = [prefix for prefix in found if not _FOLLOWERS.search(prefix)]
  if len(trained) == 1 or len(found) == 1:
    prefix = (trained or list(found))[0]
    return found[prefix], prefix
  raise ValueError(
    f'{len(found)} encoders, {", ".join(sorted(found))}; write a file with one of them'
  )
