"""The views of an image: how the host crops each, and how the device augments it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sslhsic import augment
from sslhsic.data import loader


@dataclasses.dataclass(frozen=True)
class View:
  """Settings of a view, an entry of `config.augment.views`.

  Attributes:
    policy: name of the augmentation on the device, see `augment.create`.
    size: of the crop on the host, in pixels; None: `config.data.crop_size`. 0 is the
      whole image, which the device crops.
    area: least and greatest share of the image that the crop takes.
    is_global: whether the target network, if there is one, sees the view.
  """

  policy: str
  size: int | None = None
  area: tuple[float, float] = (0.08, 1.0)
  is_global: bool = True

  def crop(self, default_size: int, interpolation: str) -> loader.Crop:
    """The crop on the host.

    Args:
      default_size: where `size` is None.
      interpolation: see `resampling`.
    """
    size = default_size if self.size is None else self.size
    if not size:
      return loader.whole_image
    return loader.random_crop(size, tuple(self.area), interpolation)


def parse(settings: Sequence[Mapping[str, Any]]) -> list[View]:
  """The views of a configuration.

  Args:
    settings: `config.augment.views`, fields of `View` for each.

  Raises:
    ValueError: there are fewer than two views, none is global, a global view comes
      after a local one, or a view has an unknown field or an impossible value.
  """
  views = [_parse(number, fields) for number, fields in enumerate(settings)]
  if len(views) < 2:
    raise ValueError(f'config.augment.views has {len(views)} views; use two or more')
  is_global = [view.is_global for view in views]
  # True sorts first in reverse: the first G views are the global ones.
  if not is_global[0] or is_global != sorted(is_global, reverse=True):
    raise ValueError(
      f'config.augment.views has is_global = {is_global}; put the global views first, '
      'at least one'
    )
  return views


def _parse(number: int, fields: Mapping[str, Any]) -> View:
  name = f'config.augment.views[{number}]'
  known = [field.name for field in dataclasses.fields(View)]
  if not isinstance(fields, Mapping) or 'policy' not in fields:
    raise ValueError(f'{name} is {fields!r}; use {{"policy": NAME}}, with {known}')
  unknown = sorted(set(fields) - set(known))
  if unknown:
    raise ValueError(f'{name} has no field {unknown[0]!r}; use {", ".join(known)}')
  view = View(**fields)
  if view.size is not None and view.size < 0:
    raise ValueError(f'{name}.size is {view.size}; use pixels, or 0 for whole images')
  if not (len(view.area) == 2 and 0 < view.area[0] <= view.area[1] <= 1):
    raise ValueError(f'{name}.area is {view.area}; use (least, greatest) in (0, 1]')
  return view


def policies(
  views: Sequence[View], *, mean: Sequence[float], std: Sequence[float], **options: Any
) -> list[augment.Policy]:
  """The augmentation of each view on the device.

  Args:
    views: of `parse`.
    mean, std: normalisation of the images, one number a channel.
    **options: strengths, `config.augment.options`.
  """
  return [augment.create(view.policy, mean=mean, std=std, **options) for view in views]
