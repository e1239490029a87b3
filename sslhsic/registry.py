"""What a configuration chooses by name: settings, their defaults, and checks.

A registry maps names to what makes an object, such as `losses.LOSSES` its classes. The
settings of an entry are its arguments that have a default.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ml_collections import config_dict

T = TypeVar('T')
Registry = Mapping[str, Callable[..., Any]]


def settings(
  kind: str, registry: Registry, name: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
  """A block of a configuration: the chosen entry, and the settings of every entry.

  Args:
    kind: noun for the entries, for messages.
    registry: the entries by name.
    name: the chosen one.
    changes: settings of the chosen one that differ from their defaults.

  Returns:
    {'name': name, ENTRY: {SETTING: default, …}, …}. A default of None is a placeholder
    of the type in the annotation `TYPE | None`.

  Raises:
    ValueError: there is no such entry, or it has no such setting.
  """
  # For its checks alone; the entry makes nothing here.
  find(kind, registry, name, changes)
  blocks = defaults(registry)
  return {'name': name, **blocks, name: {**blocks[name], **changes}}


def defaults(registry: Registry) -> dict[str, dict[str, Any]]:
  """The settings of every entry, {ENTRY: {SETTING: default, …}, …}; see `settings`."""
  return {entry: _defaults(make) for entry, make in registry.items()}


def find(
  kind: str, registry: Registry, name: str, given: Iterable[str]
) -> Callable[..., Any]:
  """The entry of this name, which takes the settings that are given.

  Raises:
    ValueError: there is no such entry, or it has no such setting.
  """
  made = entry(kind, registry, name)
  check_settings(f'the {kind} {name}', _defaults(made), given)
  return made


def entry(kind: str, entries: Mapping[str, T], name: str) -> T:
  """The entry of this name.

  Raises:
    ValueError: there is none; the message has the nearest names, and all.
  """
  if name not in entries:
    raise ValueError(f'unknown {kind} {name!r}; {_what_there_is(name, entries)}')
  return entries[name]


def check_settings(owner: str, known: Iterable[str], given: Iterable[str]) -> None:
  """Checks the names of settings.

  Args:
    owner: noun for what has the settings, for the message.
    known: names of its settings.
    given: names to check.

  Raises:
    ValueError: one is not known; the message has the nearest names, and all.
  """
  known = list(known)
  for setting in given:
    if setting not in known:
      raise ValueError(
        f'{owner} has no setting {setting!r}; {_what_there_is(setting, known)}'
      )


def _what_there_is(name: str, known: Iterable[str]) -> str:
  nearest = ' or '.join(map(repr, difflib.get_close_matches(name, known, n=2)))
  question = f'did you mean {nearest}? ' if nearest else ''
  return f'{question}use one of {", ".join(known) or "none"}'


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
  return {
    argument.name: _default(argument)
    for argument in inspect.signature(make, eval_str=True).parameters.values()
    if argument.default is not argument.empty
  }


def _default(argument: inspect.Parameter) -> Any:
  if argument.default is not None:
    return argument.default
  # A configuration field keeps its type; for a default of None the annotation has it.
  (type_,) = set(typing.get_args(argument.annotation)) - {type(None)}
  return config_dict.placeholder(type_)
