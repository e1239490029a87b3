"""What a table of results is: rows of overrides, columns of metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

PRETRAIN = 'pretrain'  # The step that makes the encoder of a row.
RANDOM = 'random'  # A row of an encoder that was not trained.
# A row of an encoder that was trained on labels; and the step that does it.
SUPERVISED = 'supervised'

# How a metric is shown: factor and decimal places.
UNITS = {'percent': (100.0, 1), 'plain': (1.0, 3)}


class Column(NamedTuple):
  """What a column shows.

  Attributes:
    step: the step that measures it.
    metric: its name in that step's results.json; a dot leads into a part of them.
    unit: one of `UNITS`.
  """

  step: str
  metric: str
  unit: str

  def shown(self, value: float) -> str:
    """A measured value in its unit."""
    factor, places = UNITS[self.unit]
    return f'{factor * value:.{places}f}'


class Table(NamedTuple):
  """A table, of one base.

  Attributes:
    name: of its file.
    base: the scale that it is made at.
    title, note: for the caption.
    steps: FOLDER/NAME of the configuration by step, `PRETRAIN` first. Those but that
      and `SUPERVISED`, a fine-tuning from random values, evaluate every row. Columns of
      `PRETRAIN` show what it measures of a supervised network too.
    columns: by title.
    rows: title -> overrides of the configuration of `PRETRAIN`; `RANDOM`;
      `SUPERVISED`; or None for a row without runs.
    published: row -> column -> value, in the unit of the column.
    baselines: title of a row -> column -> metric in the results of the first row with
      runs that has them, such as the accuracy of pixels. These rows come first.
    of_changed_rows: overrides of every row that differs from the configuration, which
      leave out what is the same for all, such as the baselines.
  """

  name: str
  base: str
  title: str
  note: str
  steps: dict[str, str]
  columns: dict[str, Column]
  rows: dict[str, dict[str, Any] | str | None]
  published: dict[str, dict[str, float]]
  baselines: dict[str, dict[str, str]]
  of_changed_rows: dict[str, Any]


def parse(name: str, base: str, found: Mapping[str, Any]) -> Table:
  """Makes a table of what its file says.

  Published values of columns or rows that are not there at this base are left out, and
  so are rows that have neither runs nor such values.

  Raises:
    ValueError: a column is of a step that there is not, or of an unknown unit; a row is
      of an unknown kind; or a baseline is of a column that there is not.
  """
  columns = {title: Column(*column) for title, column in found['columns'].items()}
  for title, column in columns.items():
    if column.step not in found['steps'] or column.unit not in UNITS:
      raise ValueError(
        f'column {title!r} of table {name} is {tuple(column)}; use a step of '
        f'{", ".join(found["steps"])} and a unit of {", ".join(UNITS)}'
      )
  kinds = {RANDOM, SUPERVISED} & {RANDOM, *found['steps']}
  for title, row in found['rows'].items():
    if isinstance(row, str) and row not in kinds:
      raise ValueError(
        f'row {title!r} of table {name} is {row!r}; use overrides, None, {RANDOM!r} '
        f'or, with a step of that name, {SUPERVISED!r}'
      )
  baselines = found.get('baselines', {})
  unknown = {title for row in baselines.values() for title in row} - set(columns)
  if unknown:
    raise ValueError(
      f'baselines of table {name} have columns {", ".join(sorted(unknown))}; use some '
      f'of {", ".join(columns)}'
    )
  published = {
    row: {title: value for title, value in values.items() if title in columns}
    for row, values in found['published'].items()
    if row in found['rows']
  }
  rest = {field: found[field] for field in ('title', 'note', 'steps')}
  return Table(
    name=name,
    base=base,
    columns=columns,
    rows={
      title: row
      for title, row in found['rows'].items()
      if row is not None or published.get(title)
    },
    published=published,
    baselines=baselines,
    of_changed_rows=found.get('of_changed_rows', {}),
    **rest,
  )


def with_values(table: Table) -> list[str]:
  """Titles of the columns that have a published value in some row."""
  return [x for x in table.columns if any(x in row for row in table.published.values())]
