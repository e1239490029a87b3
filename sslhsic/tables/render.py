"""Tables as Markdown, LaTeX, CSV, and JSON for the report."""

import csv
import io
import json
from typing import NamedTuple

from sslhsic import atomic, storage
from sslhsic.tables import printed
from sslhsic.tables import results as results_lib
from sslhsic.tables import table as table_lib


class Grid(NamedTuple):
  """A table as it is shown.

  Attributes:
    header: titles of all columns, that of the rows' titles first.
    rows: cells, as many as there are titles.
    caption: paragraphs.
  """

  header: list[str]
  rows: list[list[str]]
  caption: list[str]


def grid(
  table: table_lib.Table, results: results_lib.Results, command: str = ''
) -> Grid:
  """Mean ± standard deviation over seeds, published values beside.

  Args:
    table: the table.
    results: its values.
    command: what makes the table, for the caption.
  """
  published = table_lib.with_values(table)
  header = ['']
  for title in table.columns:
    header += [title, f'{title}, published'] if title in published else [title]
  rows = []
  for row in (*table.baselines, *table.rows):
    cells = [row]
    for title, column in table.columns.items():
      values = results.values.get(row, {}).get(title, [])
      cells.append(_cell(column, values, results.num_seeds))
      if title in published:
        cells.append(str(table.published.get(row, {}).get(title, '')))
    rows.append(cells)
  return Grid(header, rows, _caption(table, results, command))


def _cell(column: table_lib.Column, values: list[float], num_seeds: int) -> str:
  if not values:
    return ''
  mean, std = results_lib.mean_and_std(values)
  text = column.shown(mean)
  if std is not None:
    text += f' ± {column.shown(std)}'
  return text if len(values) == num_seeds else f'{text} ({len(values)} of {num_seeds})'


def _caption(
  table: table_lib.Table, results: results_lib.Results, command: str
) -> list[str]:
  seeds = printed.count(results.num_seeds, 'seed')
  spread = ', mean ± standard deviation' * (results.num_seeds > 1)
  first = f'{table.title}, base {table.base}; {seeds}{spread}.'
  caption = [f'{first} {table.note}'.strip()]
  # Columns that are measured alike share a sentence.
  by_text = {}
  for title, text in results.protocols.items():
    by_text.setdefault(text, []).append(title)
  for text, titles in by_text.items():
    if text:
      caption.append(f'{"; ".join(titles)}: {text}.')
  caption.append(_cost(results))
  if command:
    caption.append(f'Command: {command}')
  return caption


def _cost(results: results_lib.Results) -> str:
  missing = f'; {results.num_missing} are missing' * bool(results.num_missing)
  runs = printed.count(results.num_runs, 'run')
  text = f'{runs}, {_duration(results.seconds)} in all{missing}'
  environments = (
    f'{name} {", ".join(values)}'
    for name, values in results.environments.items()
    if values
  )
  return '; '.join([text, *environments]) + '.'


def _duration(seconds: float) -> str:
  if seconds < 3600:
    return f'{seconds / 60:.1f} minutes'
  return f'{seconds / 3600:.1f} hours'


# Formats


def markdown(grid: Grid) -> str:
  """A table in Markdown, and its caption below."""
  return '\n\n'.join([printed.markdown(grid.header, grid.rows), *grid.caption]) + '\n'


_LATEX = {
  '\\': r'\textbackslash{}',
  **{x: '\\' + x for x in '&%$#_{}'},
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\ensuremath{<}',
  '>': r'\ensuremath{>}',
  '±': r'\ensuremath{\pm}',
  '−': r'\ensuremath{-}',
  'γ': r'\ensuremath{\gamma}',
  'τ': r'\ensuremath{\tau}',
  '√': r'\ensuremath{\surd}',
  '½': r'\ensuremath{\frac{1}{2}}',
  '·': r'\ensuremath{\cdot}',
  '×': r'\ensuremath{\times}',
  '²': r'\textsuperscript{2}',
  '³': r'\textsuperscript{3}',
}


def latex(grid: Grid) -> str:
  """A `table` for a paper; its rules are those of the package booktabs."""
  lines = [_row(row) for row in grid.rows]
  columns = 'l' + 'r' * (len(grid.header) - 1)
  return '\n'.join(
    [
      r'\begin{table}',
      r'\centering',
      rf'\begin{{tabular}}{{{columns}}}',
      r'\toprule',
      _row(grid.header),
      r'\midrule',
      *lines,
      r'\bottomrule',
      r'\end{tabular}',
      rf'\caption{{{_escape(" ".join(grid.caption))}}}',
      r'\end{table}',
      '',
    ]
  )


def _row(cells: list[str]) -> str:
  return ' & '.join(map(_escape, cells)) + r' \\'


def _escape(text: str) -> str:
  # One pass, since replacements contain characters that are escaped themselves.
  return ''.join(_LATEX.get(character, character) for character in text)


def csv_text(table: table_lib.Table, results: results_lib.Results) -> str:
  """A line for each row and column: mean, standard deviation, seeds, published."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(['row', 'column', 'mean', 'std', 'seeds', 'published'])
  for row in (*table.baselines, *table.rows):
    for title, column in table.columns.items():
      values = results.values.get(row, {}).get(title, [])
      published = table.published.get(row, {}).get(title, '')
      if values or published:
        factor, _ = table_lib.UNITS[column.unit]
        mean, std = '', None
        if values:
          mean, std = results_lib.mean_and_std([factor * value for value in values])
        # Rounded, as 100 · 0.81 is 81.00000000000001.
        numbers = ['' if x in ('', None) else round(x, 10) for x in (mean, std)]
        writer.writerow([row, title, *numbers, len(values), published])
  return file.getvalue()


def json_text(grid: Grid) -> str:
  """All that is shown."""
  return json.dumps(grid._asdict(), indent=2, ensure_ascii=False) + '\n'


def write(
  directory: storage.Path,
  table: table_lib.Table,
  results: results_lib.Results,
  command: str,
) -> str:
  """Writes DIRECTORY/NAME-BASE in every format, and returns the Markdown.

  Args:
    directory: made if it is not there.
    table: the table.
    results: its values.
    command: what makes the table, for the caption.
  """
  shown = grid(table, results, command)
  texts = {
    'md': markdown(shown),
    'csv': csv_text(table, results),
    'tex': latex(shown),
    'json': json_text(shown),
  }
  storage.make_directory(directory)
  for suffix, text in texts.items():
    atomic.write(directory / f'{table.name}-{table.base}.{suffix}', text)
  return texts['md']
