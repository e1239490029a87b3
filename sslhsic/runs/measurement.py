"""Runs a program that measures without training: configuration in, results out."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import ml_collections

from sslhsic.runs import command_line, processes, workdir

Measure = Callable[[ml_collections.ConfigDict, pathlib.Path], dict[str, Any]]


def main(measure: Measure) -> None:
  """Runs a program from its command line; see `command_line.main`.

  Args:
    measure: a function of configuration and working directory; gives the results, of
      JSON types. A `ValueError` or `OSError` of it ends the program with one line.
  """

  def program(config, path):
    others = processes.OtherProcessError
    with command_line.one_line_errors(ValueError, OSError, others):
      run(measure, config, path)

  command_line.main(program)


def run(
  measure: Measure, config: ml_collections.ConfigDict, path: pathlib.Path
) -> None:
  """Measures, and writes `config.json` and `results.json` into a working directory.

  Several processes all measure; the first alone writes.

  Raises:
    ValueError: the directory holds a run of another configuration, or is in use.
    OSError: the directory cannot be written.
    OtherProcessError: one of these, of the first process; in the others.
  """
  start = time.perf_counter()
  lock = processes.first_does(lambda: workdir.claim(path, config))
  processes.first_does(lambda: workdir.write_config(path, config))
  results = measure(config, path)
  results |= {'wall_time_s': time.perf_counter() - start}
  processes.first_does(lambda: workdir.write_results(path, results))
  if lock:
    lock.close()
  print(f'results.json is in {path}')
