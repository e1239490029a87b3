"""A picture of every logged scalar over training."""

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
