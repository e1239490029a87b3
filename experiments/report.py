"""Makes one page of runs, to be looked at in a browser: a file that needs no network.

python -m experiments.report --output=report.html runs/digits runs/digits-byol

A directory may also be one with runs below it, as `experiments.reproduce` makes it.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import inspection
from sslhsic.report import page, runs, svg
from sslhsic.runs import command_line, paths, writers

_OUTPUT = flags.DEFINE_string('output', 'report.html', 'The file to write.')
_ENCODERS = flags.DEFINE_integer(
  'encoders', 4, 'How many pre-trained encoders to look into, the first by name.'
)

_NOT_DRAWN = {'step', 'images_per_second', 'data_wait_share'}


def main(argv: list[str]) -> None:
  """Writes the page."""
  with command_line.one_line_errors(ValueError, OSError):
    directories = [paths.local(argument, 'a run') for argument in argv[1:]]
    if not directories:
      raise ValueError('no run: give working directories, as in runs/digits')
    output = paths.output_file(_OUTPUT.value, '--output')
    writers.write_atomically(output, report(directories, _ENCODERS.value))
    print(f'the report is {output}')


def report(directories: Sequence[pathlib.Path], num_encoders: int) -> str:
  """The page of all runs in these directories and below.

  Args:
    directories: where to look.
    num_encoders: how many encoders to look into.

  Raises:
    ValueError: there is no run.
  """
  found = runs.find(directories)
  pretrained = [run for run in found if run.is_pretraining]
  sections = [
    tables(directories),
    results(found),
    differences(found),
    curves(found),
    approximations(pretrained),
    *inspection.sections(pretrained, num_encoders),
  ]
  title = f'Report on {", ".join(map(str, directories))}'
  return page.page(title, [section for section in sections if section.body])


def tables(directories: Sequence[pathlib.Path]) -> page.Section:
  """What `experiments.reproduce` has written."""
  parts = [page.table(*grid) for grid in runs.find_tables(directories)]
  return page.Section('Tables', ''.join(parts))


def results(found: Sequence[runs.Run]) -> page.Section:
  """Every number of results.json, and what it ran on."""
  parts = []
  for group in runs.of_one_program(found):
    done = [run for run in group if run.results]
    names, rows = runs.metrics(done)
    if done:
      lines = [[run.name, *row] for run, row in zip(done, rows, strict=True)]
      parts.append(page.table(['run', *names], lines, _origin(done, names)))
  missing = [run.name for run in found if not run.results]
  if missing:
    parts.append(page.note(f'Not done: {", ".join(missing)}.'))
  return page.Section('Results', ''.join(parts))


def _origin(done: Sequence[runs.Run], names: Sequence[str]) -> list[str]:
  """Protocols of the metrics and machines of some runs, each once."""
  described = {name.partition('.')[0] for name in names} | {'data', 'features'}
  texts = {}
  for run in done:
    for name, text in run.results.get('protocol', {}).items():
      if name in described:
        texts[f'{name}: {text}.'] = None
    versions = run.results.get('versions', {})
    texts[
      f'On {run.results.get("device")}, jax {versions.get("jax")}, commit '
      f'{run.results.get("git_commit")}.'
    ] = None
  return list(texts)


def differences(found: Sequence[runs.Run]) -> page.Section:
  """In which fields the configurations of runs of one program differ."""
  parts = []
  for group in runs.of_one_program(found):
    fields, rows = runs.differences(group)
    lines = [[run.name, *row] for run, row in zip(group, rows, strict=True)]
    lines.insert(0, ['run', *fields])
    if len(fields) > len(group):  # The longer side goes down the page.
      lines = [list(column) for column in zip(*lines, strict=True)]
    if fields:
      parts.append(page.table(lines[0], lines[1:]))
  return page.Section('Differences of configurations', ''.join(parts))


def curves(found: Sequence[runs.Run]) -> page.Section:
  """Every logged term over the steps; runs of one program in one chart."""
  parts = []
  for group in runs.of_one_program([run for run in found if run.rows]):
    names = {name: None for run in group for row in run.rows for name in row}
    charts = [
      svg.lines(_series(group, name), name) for name in names if name not in _NOT_DRAWN
    ]
    parts += [page.legend([run.name for run in group]), page.side_by_side(charts)]
  return page.Section('Training', ''.join(parts))


def _series(group: Sequence[runs.Run], name: str) -> dict[str, svg.Points]:
  return {
    run.name: [(row['step'], row[name]) for row in run.rows if name in row]
    for run in group
  }


def approximations(found: Sequence[runs.Run]) -> page.Section:
  """What is logged with its approximation: InfoNCE, by HSIC."""
  logged = sorted({name for run in found for row in run.rows for name in row})
  parts = []
  for name in logged:
    other = f'{name}_approximation'
    series = {
      run.name: [(row[name], row[other]) for row in run.rows if other in row]
      for run in found
      if any(other in row for row in run.rows)
    }
    if series:
      parts.append(svg.against(series, name, x_label='exact', y_label='approximation'))
      parts.append(page.legend(list(series)))
  text = page.note(
    'InfoNCE in the kernel of the loss, and −(N/Δl)·HSIC(Z,Y) + ½·E Var k, its second '
    'order; one point for each logged step. On the line, both are equal.'
  )
  body = text + page.side_by_side(parts) if parts else ''
  return page.Section('InfoNCE and HSIC', body)


if __name__ == '__main__':
  command_line.run(main)
