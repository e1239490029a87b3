"""Runs a program that measures without training: configuration in, results out."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from sslhsic import storage
from sslhsic.runs import checks, command_line, parts, processes, workdir

Measure = Callable[[ml_collections.ConfigDict, storage.Path], dict[str, Any]]


def main(measure: Measure, free: tuple[str, ...] = ()) -> None:
  """Runs a program from its command line; see `command_line.main`.

  Args:
    measure: a function of configuration and working directory; gives the results, of
      JSON types. A `ValueError` or `OSError` of it ends the program with one line.
    free: see `run`.
  """

  def program(config, path):
    others = processes.OtherProcessError
    with command_line.one_line_errors(ValueError, OSError, others):
      run(measure, config, path, free)

  command_line.main(program)


def run(
  measure: Measure,
  config: ml_collections.ConfigDict,
  path: storage.Path,
  free: tuple[str, ...] = (),
) -> None:
  """Measures, and writes `config.json` and `results.json` into a working directory.

  Several processes all measure; the first alone writes.

  Args:
    measure: see `main`. What failed is among its results as 'failed', part -> reason.
    config: the configuration.
    path: the working directory.
    free: fields of the configuration that may differ from an earlier run in the
      directory, since `measure` checks what they name.

  Raises:
    ValueError: the directory holds a run of another configuration, or is in use; a
      setting is impossible; or a part has failed, after the others were written.
    OSError: the directory cannot be written.
    OtherProcessError: one of these, of the first process; in the others.
  """
  start = time.perf_counter()
  checks.sizes(config)
  lock = processes.first_does(lambda: workdir.claim(path, config, free))
  try:
    has_begun = processes.first_does(lambda: _begin(path, config))
    with _undone(path, is_new=bool(has_begun)):
      results = measure(config, path)
    processes.first_does(lambda: workdir.write_config(path, config))
    results |= {'wall_time_s': time.perf_counter() - start}
    processes.first_does(lambda: workdir.write_results(path, results))
  finally:
    if lock:
      lock.close()
  print(f'see {path / "results.json"}')
  if results.get('failed'):
    raise ValueError(f'{path}: {parts.message(results["failed"])}')


def _begin(path: storage.Path, config: ml_collections.ConfigDict) -> bool:
  """Whether this is the first run in the directory."""
  if storage.exists(path / 'config.json'):  # It is replaced at the end.
    return False
  workdir.write_config(path, config)
  return True


@contextlib.contextmanager
def _undone(path: storage.Path, *, is_new: bool) -> Iterator[None]:
  """Gives a new directory back if a wrong setting ends the run before it has written.

  Else the command could not be corrected: the configuration would be another one.
  """
  try:
    yield
  except (ValueError, OSError):
    # The first error counts, not that a disk or bucket cannot be reached now.
    with contextlib.suppress(OSError):
      if is_new:
        workdir.remove_config(path)
    raise
