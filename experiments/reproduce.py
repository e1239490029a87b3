"""Runs what a table of results lacks, one command after another, and writes the table.

python -m experiments.reproduce --table=kernel --base=digits --seeds=3 --workdir=DIR

Rows that are done are not done again: it may be killed at any time and started again.
The rows, and what is published, are in configs/tables.
"""

import importlib
import pathlib
import shlex
import signal
import subprocess
import types
from collections.abc import Callable

import ml_collections
from absl import flags

from sslhsic.runs import command_line, paths, writers
from sslhsic.tables import jobs, render, results
from sslhsic.tables import table as table_lib

_TABLE = flags.DEFINE_string('table', None, 'Which table: a file of configs/tables.')
_BASE = flags.DEFINE_string('base', 'digits', 'The scale: see bases.py there.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'How many seeds, from 0.', lower_bound=1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Prints the jobs, and runs none.')
_JOBS = flags.DEFINE_string(
  'jobs', None, 'A file for the commands that are missing, one a line; runs none.'
)
_COLLECT = flags.DEFINE_bool('collect', False, 'Writes the table of what is done only.')

_CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs' / 'tables'


class StoppedError(Exception):
  """A signal has ended the runs; says which job was not done."""


def main(argv: list[str]) -> None:
  """Runs, prints or gathers the jobs, as the flags say."""
  command_line.no_arguments(argv)
  root = command_line.workdir()
  with command_line.one_line_errors(ValueError, OSError, StoppedError):
    table = load(_TABLE.value, _BASE.value)
    plans = plan(table, _SEEDS.value, root)
    file = _JOBS.value and paths.output_file(_JOBS.value, '--jobs')
    if _DRY_RUN.value or _JOBS.value:
      lines = commands(plans)
      if file:
        writers.write_atomically(file, ''.join(f'{line}\n' for line in lines))
      print(*lines if _DRY_RUN.value else [f'{len(lines)} commands'], sep='\n')
      return
    failed = [] if _COLLECT.value else run(all_jobs(plans), in_subprocess)
    print(write(table, plans, root))
    if failed:
      names = ', '.join(str(job.workdir) for job in failed)
      raise ValueError(f'{len(failed)} jobs are not done: {names}; see above')


# Planning


def names() -> list[str]:
  """The tables that there are."""
  return sorted(path.stem for path in _CONFIGS.glob('*.py') if path.stem != 'bases')


def load(name: str | None, base: str) -> table_lib.Table:
  """The table of configs/tables/NAME.py at the scale of a base.

  Raises:
    ValueError: there is no such table, or not at this scale.
  """
  if name not in names():
    raise ValueError(f'unknown table {name!r}; use one of {", ".join(names())}')
  if base not in bases_of(name):
    raise ValueError(
      f'table {name} has no base {base!r}; use one of {", ".join(bases_of(name))}'
    )
  return table_lib.parse(name, base, _module(name).get_table(base))


def bases_of(name: str) -> tuple[str, ...]:
  """The scales that there are of a table."""
  return _module(name).BASES


def _module(name: str) -> types.ModuleType:
  return importlib.import_module(f'configs.tables.{name}')


def load_config(name: str) -> ml_collections.ConfigDict:
  """The configuration of configs/FOLDER/NAME.py."""
  return importlib.import_module(f'configs.{name.replace("/", ".")}').get_config()


def plan(table: table_lib.Table, num_seeds: int, root: pathlib.Path) -> results.Plans:
  """The jobs of every row that has runs, for every seed."""
  return {
    row: [jobs.of_row(table, row, seed, root, load_config) for seed in range(num_seeds)]
    for row, overrides in table.rows.items()
    if overrides is not None
  }


def all_jobs(plans: results.Plans) -> list[jobs.Job]:
  """Every job once, in an order in which they can run."""
  return jobs.in_order([step for plan in plans.values() for step in plan])


def commands(plans: results.Plans) -> list[str]:
  """Independent commands for what is missing, a line for each row and seed."""
  lines, seen = [], set()
  for plan in plans.values():
    for steps in plan:
      missing = [x for x in steps.values() if x.workdir not in seen and not x.results()]
      seen |= {job.workdir for job in missing}
      if missing:
        lines.append(jobs.chain(missing))
  return lines


# Running


def run(wanted: list[jobs.Job], start: Callable[[jobs.Job], None]) -> list[jobs.Job]:
  """Runs the jobs that are not done, one after another.

  Args:
    wanted: jobs, those that others need first.
    start: runs one, and returns when it has ended, well or not.

  Returns:
    Those that are not done at the end, because they or what they need failed.
  """
  failed = []
  missing = [job for job in wanted if not job.results()]
  print(f'{len(wanted) - len(missing)} of {len(wanted)} jobs are done')
  for number, job in enumerate(missing, 1):
    if any(job.needs == other.workdir for other in failed):
      failed.append(job)
      continue
    print(f'\njob {number} of {len(missing)}: {shlex.join(job.command)}', flush=True)
    start(job)
    if not job.results():
      failed.append(job)
  return failed


def in_subprocess(job: jobs.Job) -> None:
  """Runs the command of a job; signals go to it, and then end this program too.

  Raises:
    StoppedError: by a signal, after which the job has saved what it can go on from.
  """
  received = []
  with subprocess.Popen(job.command) as process:

    def forward(number, frame):
      del frame
      received.append(signal.Signals(number))
      process.send_signal(number)

    handlers = {x: signal.signal(x, forward) for x in (signal.SIGTERM, signal.SIGINT)}
    try:
      process.wait()
    finally:
      for number, handler in handlers.items():
        signal.signal(number, handler)
  if received:
    raise StoppedError(
      f'stopped by {received[0].name} in {job.workdir}; the same command goes on'
    )


# The table


def write(table: table_lib.Table, plans: results.Plans, root: pathlib.Path) -> str:
  """Gathers what is done, writes ROOT/tables/NAME-BASE.* and returns the Markdown."""
  found = results.collect(table, plans)
  command = ['python', '-m', 'experiments.reproduce', f'--table={table.name}']
  command += [f'--base={table.base}', f'--seeds={found.num_seeds}', f'--workdir={root}']
  grid = render.grid(table, found, shlex.join(command))
  directory = root / 'tables'
  directory.mkdir(parents=True, exist_ok=True)
  texts = {
    'md': render.markdown(grid),
    'csv': render.csv_text(table, found),
    'tex': render.latex(grid),
    'json': render.json_text(grid),
  }
  for suffix, text in texts.items():
    writers.write_atomically(directory / f'{table.name}-{table.base}.{suffix}', text)
  return f'\n{texts["md"]}\nin {directory}, as Markdown, CSV, LaTeX and JSON'


if __name__ == '__main__':
  command_line.run(main)
