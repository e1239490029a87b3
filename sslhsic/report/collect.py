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
    results: of results.json; empty if it is not done.
    rows: of metrics.jsonl.
  """

  name: str
  path: storage.Path
  config: dict[str, Any]
  results: dict[str, Any]
  rows: list[dict[str, Any]]

  @property
  def is_pretraining(self) -> bool:
    """Whether it has made an encoder."""
    return 'target_network' in self.config


def find(directories: Sequence[storage.Path]) -> list[Run]:
  """Every run in the directories and below, in order of their paths.

  Raises:
    ValueError: there is none.
  """
  # Resolved, so that a run below two of the directories appears once.
  paths = sorted(
    {
      storage.resolved(file.parent)
      for directory in directories
      for file in storage.find(directory, 'config.json')
    }
  )
  if not paths:
    raise ValueError(
      f'no run in {", ".join(map(str, directories))}: give working directories, or a '
      'directory above them'
    )
  # Names start below the deepest directory that holds all runs.
  parents = [path.parent.parts for path in paths]
  differ = (len(set(parts)) > 1 for parts in zip(*parents, strict=False))
  above = next(itertools.compress(itertools.count(), differ), min(map(len, parents)))
  return [
    Run(
      os.sep.join(path.parts[above:]),
      path,
      workdir.read_json(path / 'config.json'),
      workdir.read_json(path / 'results.json'),
      writers.read(path),
    )
    for path in paths
  ]


def find_tables(directories: Sequence[storage.Path]) -> list[render.Grid]:
  """The tables that `experiments.reproduce` has written there."""
  files = {
    storage.resolved(file)
    for directory in directories
    for file in storage.find(directory, 'tables/*.json')
  }
  grids = [workdir.read_json(file) for file in sorted(files)]
  return [render.Grid(**grid) for grid in grids if grid]  # Not of damaged files.


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
    [f'{found[name]:.4g}' if name in found else '' for name in names]
    for found in numbers
  ]
  return names, rows


def _numbers(results: dict[str, Any]) -> dict[str, float]:
  """Plain numbers, and those of a few that belong together, such as by label count."""
  numbers = {}
  for name, value in results.items():
    # Validation scores choose settings, and memory is no score.
    if name.startswith(('validation', 'peak_memory')):
      continue
    if isinstance(value, int | float):
      numbers[name] = value
    elif isinstance(value, dict) and len(value) <= _MAX_TOGETHER:
      numbers |= {
        f'{name}.{part}': x for part, x in value.items() if isinstance(x, int | float)
      }
  return numbers
