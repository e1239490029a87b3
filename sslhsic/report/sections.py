"""Sections on what was logged and measured: tables, results, curves."""

from collections.abc import Mapping, Sequence

from matplotlib import axes

from sslhsic import storage
from sslhsic.plots import charts
from sslhsic.report import collect, page

_NOT_DRAWN = {'step', 'images_per_second', 'data_wait_share'}
_MAX_POINTS = 300  # Of a line: more cannot be seen.


def tables(directories: Sequence[storage.Path]) -> page.Section:
  """What `experiments.reproduce` has written."""
  parts = [page.table(*grid) for grid in collect.find_tables(directories)]
  return page.Section('Tables', ''.join(parts))


def results(found: Sequence[collect.Run]) -> page.Section:
  """Every number of results.json, and what it ran on."""
  parts = []
  for group in collect.of_one_program(found):
    done = [run for run in group if run.results]
    names, rows = collect.metrics(done)
    if done:
      parts.append(_table(done, names, rows, _origin(done, names)))
  missing = [_not_done(run) for run in found if not run.results]
  if missing:
    parts.append(page.note(f'Not done: {"; ".join(missing)}.'))
  return page.Section('Results', ''.join(parts))


def _not_done(run: collect.Run) -> str:
  failed = '; '.join(f'{part} has failed: {why}' for part, why in run.failed.items())
  return f'{run.name} ({failed})' if failed else run.name


def _table(
  runs: Sequence[collect.Run],
  names: Sequence[str],
  rows: Sequence[Sequence[str]],
  caption: Sequence[str] = (),
) -> str:
  """What runs have under some names; the longer side goes down the page."""
  lines = [['run', *names]]
  lines += [[run.name, *row] for run, row in zip(runs, rows, strict=True)]
  if len(names) > len(runs):
    lines = [list(column) for column in zip(*lines, strict=True)]
  return page.table(lines[0], lines[1:], caption)


def _origin(done: Sequence[collect.Run], names: Sequence[str]) -> list[str]:
  """Protocols of the metrics and machines of some runs, each once."""
  # A number 'name.part' is described under 'name'.
  described = {name.partition('.')[0] for name in names} | {'data', 'features'}
  # A dict as an ordered set: each text once.
  texts = {}
  for run in done:
    for name, text in run.results.get('protocol', {}).items():
      if isinstance(text, dict):  # Of a task of transfer.
        texts[f'{name}: {" ".join(text.values())}.'] = None
      elif name in described:
        texts[f'{name}: {text}.'] = None
    versions = run.results.get('versions', {})
    texts[
      f'On {run.results.get("device")}, jax {versions.get("jax")}, commit '
      f'{run.results.get("git_commit")}.'
    ] = None
  return list(texts)


def differences(found: Sequence[collect.Run]) -> page.Section:
  """In which fields the configurations of runs of one program differ."""
  parts = []
  for group in collect.of_one_program(found):
    fields, rows = collect.differences(group)
    if fields:
      parts.append(_table(group, fields, rows))
  return page.Section('Differences of configurations', ''.join(parts))


def curves(found: Sequence[collect.Run]) -> page.Section:
  """Every logged term over the steps; runs of one program in one chart."""
  parts = []
  for group in collect.of_one_program([run for run in found if run.rows]):
    names = {name: None for run in group for row in run.rows for name in row}
    drawn = [
      line_chart(_series(group, name), name) for name in names if name not in _NOT_DRAWN
    ]
    parts += [page.legend([run.name for run in group]), page.side_by_side(drawn)]
  return page.Section('Training', ''.join(parts))


def line_chart(
  series: Mapping[str, charts.Points],
  title: str,
  *,
  x_label: str = 'step',
  log_y: bool = False,
) -> str:
  """A line for each series, of points that are thinned to what can be seen."""

  def draw(axis: axes.Axes) -> None:
    thinned = {name: _thinned(points) for name, points in series.items()}
    charts.lines(axis, thinned, log_y=log_y)
    axis.xaxis.get_major_locator().set_params(integer=True)  # Steps and ranks are.

  return page.chart(title, draw, xlabel=x_label)


def _series(group: Sequence[collect.Run], name: str) -> dict[str, charts.Points]:
  return {
    run.name: [(row['step'], row[name]) for row in run.rows if name in row]
    for run in group
  }


def _thinned(points: charts.Points) -> charts.Points:
  """At most so many points, the last among them."""
  # Rounded up; `or 1` because a slice of no points still needs a step.
  every = -(-len(points) // _MAX_POINTS) or 1
  # Counted from the end, so that the last point is kept.
  return points[::-1][::every][::-1]


def approximations(found: Sequence[collect.Run]) -> page.Section:
  """What is logged with its approximation: InfoNCE, by HSIC."""
  logged = sorted({name for run in found for row in run.rows for name in row})
  parts = []
  for name in logged:
    other = f'{name}_approximation'
    series = {
      run.name: _thinned([(row[name], row[other]) for row in run.rows if other in row])
      for run in found
      if any(other in row for row in run.rows)
    }
    if series:
      parts.append(_against(series, name))
      parts.append(page.classes(list(series)))
  text = page.note(
    'InfoNCE in the kernel of the loss, and −(N/Δl)·HSIC(Z,Y) + ½·E Var k, its second '
    'order; one point for each logged step. On the line, both are equal.'
  )
  body = text + page.side_by_side(parts) if parts else ''
  return page.Section('InfoNCE and HSIC', body)


def _against(series: Mapping[str, charts.Points], title: str) -> str:
  def draw(axis: axes.Axes) -> None:
    charts.clouds(axis, series)
    charts.equality(axis)

  return page.chart(title, draw, xlabel='exact', ylabel='approximation')
