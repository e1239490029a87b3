"""Runs what a table of results lacks, one command after another, and writes the table.

python -m experiments.reproduce --table=kernel --base=digits --seeds=3 --workdir=DIR

Rows that are done are not done again: it may be killed at any time and started again.
The rows, and what is published, are in configs/tables.
"""

import shlex

from absl import flags

from sslhsic import atomic
from sslhsic.runs import command_line, paths
from sslhsic.tables import catalogue, execution, jobs, render, results

_TABLE = flags.DEFINE_string('table', None, 'Which table: a file of configs/tables.')
_BASE = flags.DEFINE_string('base', 'digits', 'The scale: see bases.py there.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'How many seeds, from 0.', lower_bound=1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Prints the jobs, and runs none.')
_JOBS = flags.DEFINE_string(
  'jobs', None, 'A file for the commands that are missing, one a line; runs none.'
)
_COLLECT = flags.DEFINE_bool('collect', False, 'Writes the table of what is done only.')

CATALOGUE = catalogue.Catalogue('configs')


def main(argv: list[str]) -> None:
  """Runs, prints or gathers the jobs, as the flags say."""
  command_line.no_arguments(argv)
  root = command_line.workdir()
  with command_line.one_line_errors(ValueError, OSError, execution.StoppedError):
    table = CATALOGUE.table(_TABLE.value, _BASE.value)
    plans = jobs.plan(table, _SEEDS.value, root, CATALOGUE.config)
    file = _JOBS.value and paths.output_file(_JOBS.value, '--jobs')
    if _DRY_RUN.value or _JOBS.value:
      lines = jobs.commands(plans)
      if file:
        text = ''.join(f'{line}\n' for line in lines)
        atomic.write(file, text)
      print(*(lines if _DRY_RUN.value else ()), f'{len(lines)} commands', sep='\n')
      return
    # Failed jobs leave gaps in the table, and are named after it.
    failed = []
    if not _COLLECT.value:
      failed = execution.run(jobs.in_order(plans), execution.in_subprocess)
    command = ['python', '-m', 'experiments.reproduce', f'--table={table.name}']
    command += [f'--base={table.base}', f'--seeds={_SEEDS.value}', f'--workdir={root}']
    tables, found = root / 'tables', results.collect(table, plans)
    text = render.write(tables, table, found, shlex.join(command))
    print(f'\n{text}\nin {tables}, as Markdown, CSV, LaTeX and JSON')
    if failed:
      names = ', '.join(str(job.workdir) for job in failed)
      raise ValueError(f'{len(failed)} jobs are not done: {names}; see above')


if __name__ == '__main__':
  command_line.run(main)
