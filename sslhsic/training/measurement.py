"""Runs a program that measures without training: configuration in, results out."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import ml_collections

from sslhsic.training import command_line, workdir

Measure = Callable[[ml_collections.ConfigDict, pathlib.Path], dict[str, Any]]


def main(measure: Measure) -> None:
  """Runs a program from its command line; see `command_line.main`.

  Args:
    measure: a function of configuration and working directory; gives the results, of
      JSON types. A `ValueError` or `OSError` of it ends the program with one line.
  """

  def program(config, path):
    with command_line.one_line_errors(ValueError, OSError):
      run(measure, config, path)

  command_line.main(program)


def run(
  measure: Measure, config: ml_collections.ConfigDict, path: pathlib.Path
) -> None:
  """Measures, and writes `config.json` and `results.json` into a working directory.

  Raises:
    ValueError: the directory holds a run of another configuration.
    OSError: the directory cannot be written.
  """
  start = time.perf_counter()
  workdir.check(path, config)
  workdir.write_config(path, config)
  results = measure(config, path)
  wall_time_s = time.perf_counter() - start
  workdir.write_results(path, results | {'wall_time_s': wall_time_s})
  print(f'results.json is in {path}')
