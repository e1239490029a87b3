"""Figures of the logged scalars over training, and of accuracy by labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from sslhsic import storage
from sslhsic.plots import charts, panels


@panels.look()
def plot(rows: Sequence[dict[str, Any]], path: storage.Path) -> None:
  """Draws a panel for each scalar of `metrics.jsonl` into a PNG.

  The loss comes first, then accuracies, then all else by its name.
  """
  names = sorted({name for row in rows for name in row} - {'step'}, key=_rank)
  figure, axes = panels.open_figure(len(names))
  for axis, name in zip(axes, names, strict=True):
    charts.lines(axis, {name: _over_time(rows, name)})
    axis.set_title(name)
  figure.supxlabel('step')
  panels.save(figure, path)


@panels.look()
def plot_approximations(
  rows: Sequence[dict[str, Any]], directory: storage.Path
) -> None:
  """Draws each scalar that is logged with its `…_approximation` against it.

  Writes NAME.png: both over training, and one against the other, a point for each
  logged step, next to the line where they are equal.
  """
  logged = {name for row in rows for name in row}
  for name in sorted(logged):
    approximation = f'{name}_approximation'
    if approximation not in logged:
      continue
    figure, (over_time, against) = panels.open_figure(2, size=(4.5, 3.6))
    names = name, approximation
    charts.lines(over_time, {x: _over_time(rows, x) for x in names})
    over_time.lines[-1].set_linestyle('--')  # Both are seen where they are equal.
    over_time.set_xlabel('step')
    over_time.legend()
    # Both are logged by the same measurement, in the same rows.
    points = [(row['step'], *(row[x] for x in names)) for row in rows if name in row]
    steps, values, approximations = zip(*points, strict=True)
    colours = against.scatter(values, approximations, c=steps, s=12, zorder=2)
    figure.colorbar(colours, label='step')
    charts.equality(against)
    against.set(xlabel=name, ylabel=approximation)
    panels.save(figure, directory / f'{name}.png')


def few_label_curve(top1: Mapping[int, float], path: storage.Path) -> None:
  """Draws top-1 accuracy by labels per class into a PNG."""
  figure, (axis,) = panels.open_figure(size=(4.6, 3.4))
  charts.lines(axis, {'top-1': list(top1.items())}, log_x=True)
  # Ticks at the measured counts, not at powers of ten.
  axis.set_xticks(list(top1), [str(count) for count in top1])
  axis.minorticks_off()
  axis.set(xlabel='labels per class', ylabel='top-1')
  panels.save(figure, path)


def _rank(name: str) -> tuple[bool, bool, str]:
  return name != 'loss', not name.endswith(('_top1', '_top5')), name


def _over_time(rows: Sequence[dict[str, Any]], name: str) -> charts.Points:
  return [(row['step'], row[name]) for row in rows if name in row]
