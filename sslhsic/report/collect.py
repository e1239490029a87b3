"""The runs below some directories, as far as they have come."""

import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from sslhsic import storage
from sslhsic.runs import workdir, writers
from sslhsic.tables import render

_MAX_TOGETHER = 10  # Numbers under one name in results.json that are shown.


class Run(NamedTuple):
  """A working directory.

  Attributes:
    name: its path from where all runs are.
    path: its path.
    config: of config.json.
    results: of results.json; empty if it is not done, see `workdir.read_results`.
    failed: the parts of it that have failed, and why.
    rows: of metrics.jsonl.
  """

  name: str
  path: storage.Path
  config: dict[str, Any]
  results: dict[str, Any]
  failed: dict[str, str]
  rows: list[dict[str, Any]]

  @property
  def is_pretraining(self) -> bool:
    """Whether it has made an encoder."""
    return 'target_network' in self.config


def find(directories: Sequence[storage.Path]) -> list[Run]:
  """Every run in the directories and below, in order of their paths.

  Raises:
    ValueError: there is none in one of them.
  """
  configs = {}
  for directory in directories:
    found = _configs(directory)
    if not found:
      raise ValueError(
        f'no run in {directory}: give working directories, or a directory above them'
      )
    configs |= found
  paths = sorted(configs)
  # Names start below the deepest directory that holds all runs.
  parents = [path.parent.parts for path in paths]
  differ = (len(set(parts)) > 1 for parts in zip(*parents, strict=False))
  above = next(itertools.compress(itertools.count(), differ), min(map(len, parents)))
  return [
    Run(
      os.sep.join(path.parts[above:]),
      path,
      configs[path],
      workdir.read_results(path),
      workdir.read_json(path / 'results.json').get('failed', {}),
      writers.read(path),
    )
    for path in paths
  ]


def _configs(directory: storage.Path) -> dict[storage.Path, dict[str, Any]]:
  """The configurations of the runs in a directory and below, by their directories."""
  found = {
    # Resolved, so that a run below two directories appears once.
    storage.resolved(file.parent): workdir.read_json(file)
    for file in storage.find(directory, 'config.json')
  }
  # Exports for other libraries have a file of this name too.
  return {path: config for path, config in found.items() if 'seed' in config}


def find_tables(directories: Sequence[storage.Path]) -> list[render.Grid]:
  """The tables that `experiments.reproduce` has written there."""
  files = {
    storage.resolved(file)
    for directory in directories
    for file in storage.find(directory, 'tables/*.json')
  }
  grids = [workdir.read_json(file) for file in sorted(files)]
  # Not of damaged files, and not what else may lie in a directory of this name.
  fields = set(render.Grid._fields)
  return [render.Grid(**grid) for grid in grids if grid.keys() == fields]


def of_one_program(runs: Sequence[Run]) -> list[list[Run]]:
  """Groups of runs whose configurations have the same fields."""
  groups = {}
  for run in runs:
    # Configurations do not name their program; their fields tell programs apart.
    groups.setdefault(tuple(sorted(workdir.flat(run.config))), []).append(run)
  return list(groups.values())


def differences(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
  """The fields in which configurations differ, and their values in every run."""
  configs = [workdir.flat(run.config) for run in runs]
  fields = [
    field for field in configs[0] if any(x[field] != configs[0][field] for x in configs)
  ]
  return fields, [[str(config[field]) for field in fields] for config in configs]


def metrics(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
  """The names of the numbers among results, and their values in every run."""
  numbers = [_numbers(run.results) for run in runs]
  # Each name once, in the order of first appearance.
  names = list(dict.fromkeys(name for found in numbers for name in found))
  rows = [
    [_shown(found[name]) if name in found else '' for name in names]
    for found in numbers
  ]
  return names, rows


def _numbers(results: dict[str, Any], prefix: str = '') -> dict[str, float]:
  """Numbers by dotted name, also of a few that belong together, as by label count."""
  numbers = {}
  for name, value in results.items():
    # Validation scores choose settings, memory is no score, and tasks of transfer are
    # there by their metrics too.
    if name.startswith(('validation', 'peak_memory')) or name == 'tasks':
      continue
    if isinstance(value, int | float) and not isinstance(value, bool):
      numbers[prefix + name] = value
    elif isinstance(value, dict) and len(value) <= _MAX_TOGETHER:
      numbers |= _numbers(value, f'{prefix}{name}.')
  return numbers


def _shown(number: float) -> str:
  return f'{number:,}' if isinstance(number, int) else f'{number:.4g}'
