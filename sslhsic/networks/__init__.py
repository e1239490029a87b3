"""Encoders by name, and the heads on top of them; all are Haiku modules.

An encoder maps images to feature maps and an embedding; see `Encoder` for the contract.
Adding one is a file and an entry in `ENCODERS`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from sslhsic import registry
from sslhsic.networks import resnet, vit
from sslhsic.networks.encoder import Encoder, Features, SplitEncoder
from sslhsic.networks.heads import MLP
from sslhsic.networks.resnet import ResNet
from sslhsic.networks.vit import ViT

__all__ = [
  'ENCODERS',
  'MLP',
  'Encoder',
  'Features',
  'Preset',
  'ResNet',
  'SplitEncoder',
  'ViT',
  'class_of',
  'create',
  'unseen_options',
]


class Preset(NamedTuple):
  """A class of encoders, with the options of one of them."""

  network: type[Encoder]
  options: Mapping[str, Any]


# Each class of encoders, and the options of those that have a name.
_PRESETS = (
  (ResNet, resnet.PRESETS),
  (ViT, vit.PRESETS),
)

ENCODERS: dict[str, Preset] = {
  name: Preset(network, options)
  for network, presets in _PRESETS
  for name, options in presets.items()
}


def create(
  encoder: str,
  /,
  *,
  axis_name: str | None = None,
  name: str = 'encoder',
  **options: Any,
) -> Encoder:
  """Creates an encoder, inside a Haiku transformation.

  Args:
    encoder: a name in `ENCODERS`.
    axis_name: the mapped axis over which batch statistics are synchronised, or None.
    name: of the module; its parameters are named 'NAME/…'.
    **options: of its class, such as `width` of a ResNet; they replace the preset's.

  Raises:
    ValueError: there is no such encoder, it has no such option, or an option has a
      value that it cannot have.
  """
  network, of_preset = _preset(encoder)
  # Options are the arguments of the constructor, less those that no configuration sets.
  arguments = inspect.signature(network.__init__).parameters.keys()
  known = arguments - {'self', 'axis_name', 'name'}
  registry.check_settings(
    f'config.network.encoder_options: {encoder}', sorted(known), options
  )
  options = {**of_preset, **options, 'axis_name': axis_name, 'name': name}
  return network(**options)


def class_of(encoder: str) -> type[Encoder]:
  """The class of an encoder, which says how it normalises.

  Args:
    encoder: a name in `ENCODERS`.

  Raises:
    ValueError: there is no such encoder.
  """
  return _preset(encoder).network


def unseen_options(encoder: str, options: Mapping[str, Any]) -> dict[str, Any]:
  """What an encoder computes that the shapes of its weights do not show.

  Args:
    encoder: a name in `ENCODERS`.
    options: that replace the preset's.

  Returns:
    The values of `Encoder.unseen_options`, by name.

  Raises:
    ValueError: there is no such encoder.
  """
  network, of_preset = _preset(encoder)
  arguments = inspect.signature(network.__init__).parameters
  defaults = {name: argument.default for name, argument in arguments.items()}
  chosen = {**defaults, **of_preset, **options}
  return {name: chosen[name] for name in network.unseen_options}


def _preset(encoder: str) -> Preset:
  return registry.entry('config.network.encoder', ENCODERS, encoder)
