"""Writes docs/configuration_reference.md: every field of every preset, described.

python -m docs.reference

Fields, types and values come from the presets; meanings from the docstrings of losses,
optimisers, evaluators, encoders and detectors, and from configuration_fields.toml.
"""

import importlib
import inspect
import pathlib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import docstring_parser
import ml_collections

from sslhsic import atomic, evaluators, losses, networks, optim
from sslhsic.tables import printed
from sslhsic.tasks.detection import settings as detection_settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATH = ROOT / 'docs' / 'configuration_reference.md'
MEANINGS = ROOT / 'docs' / 'configuration_fields.toml'

# The preset of each program whose values the page shows.
PRESETS = {
  'pretrain': 'imagenet',
  'linear_eval': 'imagenet',
  'finetune': 'imagenet_1pct',
  'transfer': 'linear',
  'knn': 'imagenet',
  'few_label': 'imagenet',
  'segmentation': 'voc',
  'depth': 'nyu',
  'detection': 'coco_torchvision',
}

# Dicts whose keys are the user's choice: one meaning for all of each.
_FREE = (
  'augment.options',
  'evaluation.extra_tests',
  'network.encoder_options',
  'published',
  'runner.collapse.minima',
)

_INTRODUCTION = """# Configuration reference

Every field of every program, with its type, its value in one preset, and its meaning.
`--config.FIELD=VALUE` replaces a value on the command line. [Presets](configuration.md)
lists what there is to start from.

This page is generated: `make docs` writes it from the presets, from docstrings and from
`docs/configuration_fields.toml`.
"""

Row = tuple[str, str, str, str]  # Field, type, value, meaning.


class MeaningError(ValueError):
  """A field has no meaning, or a meaning no field."""


def page(meanings: Mapping[str, str]) -> str:
  """The page.

  Args:
    meanings: of the fields that no class or function documents.

  Raises:
    MeaningError: a field of a preset has no meaning, or a meaning no field.
  """
  _check_complete(meanings)
  detector = _table(_settings(detection_settings.DetectorSettings))
  parts = [
    _INTRODUCTION,
    *(_program(name, meanings) for name in PRESETS),
    _registry('Losses', '`config.loss.NAME.FIELD`', losses.LOSSES),
    _registry(
      'Optimisers',
      '`config.optimizer.NAME.FIELD` and `config.loss.optimizer.NAME.FIELD`',
      optim.OPTIMIZERS,
    ),
    _registry('Evaluators', '`config.evaluators.NAME.FIELD`', evaluators.EVALUATORS),
    _encoders(),
    f'## Detectors\n\nSettings are `config.detector.FIELD`.\n\n{detector}',
  ]
  return '\n'.join(part.rstrip('\n') + '\n' for part in parts)


def _check_complete(meanings: Mapping[str, str]) -> None:
  used, missing = set(), set()
  for program in PRESETS:
    for path in sorted((ROOT / 'configs' / program).glob('*.py')):
      for field in _fields(_preset(program, path.stem)):
        key = _key(program, field, meanings)
        (used if key in meanings else missing).add(key)
  unused = meanings.keys() - used
  if missing or unused:
    raise MeaningError(
      f'{MEANINGS.name} lacks {", ".join(sorted(missing)) or "nothing"}, and describes '
      f'{", ".join(sorted(unused)) or "nothing"} that no preset has'
    )


def _program(name: str, meanings: Mapping[str, str]) -> str:
  rows = [
    (field, type_, value, meanings[_key(name, field, meanings)])
    for field, (type_, value) in _fields(_preset(name, PRESETS[name])).items()
  ]
  file = f'configs/{name}/{PRESETS[name]}.py'
  return (
    f'## {"Pre-training" if name == "pretrain" else f"`{name}`"}\n\n'
    f'`python -m experiments.{name}`; values of [{file}](../{file}).\n\n{_table(rows)}'
  )


def _registry(
  title: str, fields: str, registry: Mapping[str, Callable[..., Any]]
) -> str:
  parts = [f'## {title}\n\nSettings are {fields}.\n']
  for name, make in registry.items():
    summary = docstring_parser.parse_from_object(make).short_description
    rows = list(_settings(make))
    table = _table(rows) if rows else 'It has no settings.'
    parts.append(f'### `{name}`\n\n{_code(summary)}\n\n{table}\n')
  return '\n'.join(parts)


def _encoders() -> str:
  names = {}
  for name, preset in networks.ENCODERS.items():
    names.setdefault(preset.network, []).append(f'`{name}`')
  parts = [
    '## Encoders\n\nSettings are the fields of `config.network.encoder_options`, which '
    'replace the values of the preset, all together: '
    '`--config.network.encoder_options="{\'width\': 2}"`.\n'
  ]
  for network, presets in names.items():
    table = _table(_settings(network, _is_option_of_encoder))
    parts.append(f'### {network.__name__}\n\n{", ".join(presets)}\n\n{table}\n')
  return '\n'.join(parts)


# Settings of classes and functions


def _has_default(argument: inspect.Parameter) -> bool:
  return argument.default is not argument.empty


def _is_option_of_encoder(argument: inspect.Parameter) -> bool:
  return argument.name not in ('self', 'axis_name', 'name')


def _settings(
  make: Callable[..., Any],
  is_setting: Callable[[inspect.Parameter], bool] = _has_default,
) -> Iterator[Row]:
  """The arguments of a class or function that are settings."""
  described = _described(make)
  for argument in inspect.signature(make).parameters.values():
    if not is_setting(argument):
      continue
    if argument.name not in described:
      raise MeaningError(
        f'the docstring of {make.__qualname__} does not describe {argument.name}'
      )
    type_ = inspect.formatannotation(argument.annotation).replace(' | ', ' or ')
    value = _value(argument.default) if _has_default(argument) else 'of the preset'
    meaning = described[argument.name]
    yield argument.name, type_.removeprefix('collections.abc.'), value, meaning


def _described(make: Callable[..., Any]) -> dict[str, str]:
  """Descriptions of arguments in the docstring, and in those of base classes."""
  found = {}
  for owner in reversed(inspect.getmro(make) if inspect.isclass(make) else [make]):
    text = inspect.cleandoc(owner.__doc__ or '')
    for argument in docstring_parser.google.parse(text).params:
      found[argument.arg_name] = _sentence(argument.description or '')
  return found


def _sentence(text: str) -> str:
  text = ' '.join(text.split())
  # A symbol such as n stays small.
  return text[0].upper() + text[1:] if re.match('[a-z]{2}', text) else text


# Fields of presets


def _preset(program: str, name: str) -> ml_collections.ConfigDict:
  return importlib.import_module(f'configs.{program}.{name}').get_config()


def _key(program: str, field: str, meanings: Mapping[str, str]) -> str:
  own = f'{program}:{field}'
  return own if own in meanings else field


def _fields(
  config: ml_collections.ConfigDict, prefix: str = ''
) -> dict[str, tuple[str, str]]:
  """Type and value of every field that is no setting of a class or function."""
  fields = {}
  for name in config:
    field, value = f'{prefix}{name}', config[name]
    if _is_documented_by_code(field):
      continue
    if not isinstance(value, ml_collections.ConfigDict) or field in _FREE:
      fields[field] = (_type(config, name), _value(value))
    elif field == 'tasks':  # All have the same fields.
      for task in value.values():
        fields |= {f'tasks.NAME.{key}': ('str', 'by task') for key in task}
    else:
      fields |= _fields(value, f'{field}.')
  return fields


def _is_documented_by_code(field: str) -> bool:
  section, _, name = field.rpartition('.')
  registries = {
    'loss': losses.LOSSES,
    'optimizer': optim.OPTIMIZERS,
    'loss.optimizer': optim.OPTIMIZERS,
    'evaluators': evaluators.EVALUATORS,
  }
  return name in registries.get(section, ()) or field == 'detector'


def _type(config: ml_collections.ConfigDict, name: str) -> str:
  value = config[name]
  if value is None:
    return f'{config.get_type(name).__name__} or None'
  return 'dict' if hasattr(value, 'items') else type(value).__name__


def _value(value: Any) -> str:
  """A value as code; of nested dicts the keys alone."""
  if isinstance(value, ml_collections.ConfigDict):
    value = value.to_dict()
  if isinstance(value, dict) and any(isinstance(x, dict) for x in value.values()):
    return ', '.join(f'`{name}`' for name in value)
  return f'`{value}`' if isinstance(value, str) and value else f'`{_short(value)}`'


def _short(value: Any) -> str:
  if isinstance(value, tuple):
    return f'({", ".join(map(_short, value))}{"," if len(value) == 1 else ""})'
  if isinstance(value, float) and len(repr(value)) > 8:  # 1/3 and the like.
    return f'{value:.4g}'
  return repr(value)


# Markdown


def _table(rows: Iterable[Row]) -> str:
  return printed.markdown(
    ['field', 'type', 'value', 'meaning'],
    [(f'`{field}`', type_, value, _code(text)) for field, type_, value, text in rows],
  )


def _code(text: str) -> str:
  """Text of a docstring with quoted values as code."""
  return re.sub(r"(?<![\w`])'([^'`\s]+)'(?![\w`])", r'`\1`', text)


def main() -> None:
  """Writes the page."""
  meanings = tomllib.loads(MEANINGS.read_text(encoding='utf-8'))
  atomic.write(PATH, page(meanings))


if __name__ == '__main__':
  main()
