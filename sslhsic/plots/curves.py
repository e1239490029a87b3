"""Figures of the logged scalars over training, and of accuracy by labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sslhsic import storage
from sslhsic.plots import charts, panels

# A scalar and the setting, such as a learning rate, that it belongs to.
_NUMBERED = re.compile(r'(.+)_(\d+(?:\.\d+)?(?:e[+-]\d+)?)')


@panels.look()
def plot(rows: Sequence[dict[str, Any]], path: storage.Path) -> None:
  """Draws a panel for each scalar of `metrics.jsonl` into a PNG.

  Scalars that differ in a number at the end, NAME_0.1 and NAME_0.3, share a panel. The
  loss comes first, then accuracies, then all else by its name. Without a scalar, it
  draws nothing.
  """
  families = _families({name for row in rows for name in row} - {'step'})
  if not families:
    return
  figure, axes = panels.open_figure(len(families), is_fixed=True)
  for axis, title in zip(axes, sorted(families, key=_rank), strict=True):
    members = families[title]
    charts.lines(
      axis, {label: _over_time(rows, name) for label, name in members.items()}
    )
    axis.set_title(title)
    if len(members) > 1:
      axis.legend()
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


def _families(names: Iterable[str]) -> dict[str, dict[str, str]]:
  """Title of a panel -> label -> name of a scalar, in the order of the numbers."""
  found = {}
  for name in names:
    match = _NUMBERED.fullmatch(name)
    title, number = match.groups() if match else (name, '-inf')
    found.setdefault(title, []).append((float(number), name))
  return {
    title: {name.removeprefix(f'{title}_'): name for _, name in sorted(members)}
    for title, members in found.items()
  }


def _rank(name: str) -> tuple[bool, bool, str]:
  return name != 'loss', not name.endswith(('_top1', '_top5')), name


def _over_time(rows: Sequence[dict[str, Any]], name: str) -> charts.Points:
  return [(row['step'], row[name]) for row in rows if name in row]
