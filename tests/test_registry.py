"""Settings by registry: what configurations get of the entries' own defaults."""

import dataclasses

import ml_collections
import pytest

from sslhsic import registry


@dataclasses.dataclass
class _Square:
  side: float = 1.0
  name: str | None = None


def _circle(centre, *, unit, radius=2.0, parts: int | None = None):
  return centre, unit, radius, parts


SHAPES = {'square': _Square, 'circle': _circle}


def _config(name='circle', **changes):
  return ml_collections.ConfigDict(registry.settings('shape', SHAPES, name, changes))


def test_settings_are_the_arguments_with_a_default():
  assert _config(radius=3.0).to_dict() == {
    'name': 'circle',
    'square': {'side': 1.0, 'name': None},
    'circle': {'radius': 3.0, 'parts': None},
  }


def test_none_has_the_type_of_its_annotation():
  config = _config()
  config.circle.parts = 4
  with pytest.raises(TypeError):
    config.circle.parts = 'four'
  with pytest.raises(TypeError):
    config.square.name = 4


def test_configurations_share_nothing():
  one, other = _config(), _config()
  one.circle.parts, one.square.side = 4, 2.0
  assert other.circle.parts is None
  assert other.square.side == 1.0


def test_found_entry_is_the_registered_one():
  assert registry.find('shape', SHAPES, 'circle', ('radius',)) is _circle


@pytest.mark.parametrize(
  ('name', 'setting', 'message'),
  [
    ('cube', 'side', "unknown shape 'cube'; use one of square, circle"),
    ('square', 'radius', "shape square has no setting 'radius'; use one of side, name"),
    ('circle', 'unit', "shape circle has no setting 'unit'; use one of radius, parts"),
  ],
)
def test_unknown_names_and_settings_are_errors(name, setting, message):
  with pytest.raises(ValueError, match=message):
    registry.find('shape', SHAPES, name, (setting,))
  with pytest.raises(ValueError, match=message):
    _config(name, **{setting: 1.0})
