"""Charts in one panel: lines, clouds of points, one value against another."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes

from sslhsic.plots import panels

Points = Sequence[tuple[float, float]]

_FEW = 30  # Points of a line that are marked.


def lines(
  axis: axes.Axes,
  series: Mapping[str, Points],
  *,
  log_x: bool = False,
  log_y: bool = False,
) -> None:
  """Draws a line for each series.

  Args:
    axis: the panel.
    series: points by name, in the order of `panels.style`. What is not finite, or on a
      log axis not positive, is a gap.
    log_x, log_y: which axes are logarithmic.
  """
  for number, (name, points) in enumerate(series.items()):
    x, y = (_drawable(*x) for x in zip(_columns(points), (log_x, log_y), strict=True))
    marked = _marked(np.isfinite(x) & np.isfinite(y))
    markers = {'marker': '.' if marked else '', 'markersize': 4, 'markevery': marked}
    axis.plot(x, y, **panels.style(number), **markers, linewidth=1.3, label=name)
  # Also without a line: the limits of an empty panel are positive.
  if log_x:
    axis.set_xscale('log')
    axis.xaxis.set_major_formatter('{x:g}')
  if log_y:
    axis.set_yscale('log')
    axis.yaxis.set_major_formatter('{x:g}')


def clouds(axis: axes.Axes, groups: Mapping[str, Points], size: float = 3.0) -> None:
  """Draws the points of each group in a colour of `panels.class_colours`.

  Args:
    axis: the panel.
    groups: points by name; what is not finite is left out.
    size: of a point, in points of 1/72 inch.
  """
  colours = panels.class_colours(len(groups))
  for colour, (name, points) in zip(colours, groups.items(), strict=True):
    axis.plot(
      *_columns(points),
      linestyle='',
      marker='o',
      markersize=size,
      markeredgewidth=0,
      color=colour,
      label=name,
    )


def equality(axis: axes.Axes) -> None:
  """Adds the line on which both values are equal, and gives both axes one range."""
  limits = *axis.get_xlim(), *axis.get_ylim()
  low, high = min(limits), max(limits)
  axis.plot([low, high], [low, high], color=panels.SOFT, linewidth=0.8, zorder=1)
  axis.set(xlim=(low, high), ylim=(low, high))


def without_axes(axis: axes.Axes) -> None:
  """Removes ticks and grid, for maps to the plane, whose coordinates mean nothing."""
  axis.set(xticks=[], yticks=[])
  axis.set_aspect('equal', adjustable='datalim')


def _columns(points: Points) -> tuple[np.ndarray, np.ndarray]:
  columns = np.asarray(points, np.float64).reshape(-1, 2).T
  return columns[0], columns[1]


def _drawable(values: np.ndarray, is_log: bool) -> np.ndarray:
  """NaN, which is a gap, in place of what is not on an axis."""
  is_there = np.isfinite(values) & ((values > 0) | (not is_log))
  return np.where(is_there, values, np.nan)


def _marked(is_there: np.ndarray) -> list[int]:
  """All of a few points; of many, those between two gaps, to which no line leads."""
  # Whether there is a point to the left and to the right.
  before, after = np.pad(is_there, 1)[:-2], np.pad(is_there, 1)[2:]
  is_marked = is_there & ((is_there.sum() < _FEW) | ~(before | after))
  return np.flatnonzero(is_marked).tolist()
