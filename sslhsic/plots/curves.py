"""Pictures of the logged scalars over training."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib import figure


def plot(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
  """Draws a panel for each scalar of `metrics.jsonl` into a PNG."""
  names = sorted({name for row in rows for name in row} - {'step'})
  columns = min(4, len(names))
  lines = math.ceil(len(names) / columns)
  picture = figure.Figure(figsize=(3.6 * columns, 2.6 * lines))
  axes = picture.subplots(lines, columns, squeeze=False)
  for axis in axes.flat:
    axis.set_axis_off()
  for axis, name in zip(axes.flat, names, strict=False):
    points = [(row['step'], row[name]) for row in rows if name in row]
    axis.set_axis_on()
    axis.plot(*zip(*points, strict=True), marker='.' if len(points) < 30 else '')
    axis.set_title(name, fontsize=10)
    axis.grid(alpha=0.3)
  for axis in axes[-1]:
    axis.set_xlabel('step')
  picture.tight_layout()
  picture.savefig(path, dpi=110)


def plot_approximations(
  rows: Sequence[dict[str, Any]], directory: pathlib.Path
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
    points = [
      (row['step'], row[name], row[approximation]) for row in rows if name in row
    ]
    steps, values, approximations = zip(*points, strict=True)
    picture = figure.Figure(figsize=(9, 3.6))
    over_time, against = picture.subplots(1, 2)
    over_time.plot(steps, values, label=name)
    over_time.plot(steps, approximations, '--', label=approximation)
    over_time.set_xlabel('step')
    over_time.legend(fontsize=8)
    colours = against.scatter(values, approximations, c=steps, s=12)
    picture.colorbar(colours, label='step')
    against.axline((values[-1], values[-1]), slope=1, color='grey', lw=0.8)
    against.set_xlabel(name)
    against.set_ylabel(approximation)
    for axis in (over_time, against):
      axis.grid(alpha=0.3)
    picture.tight_layout()
    picture.savefig(directory / f'{name}.png', dpi=110)
