"""Charts as SVG, drawn in the colours of the page."""

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

NUM_COLOURS = 8  # Classes c0, c1, ... of the page's style sheet.

_WIDTH, _HEIGHT = 300, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 22, 32  # Margins.
_MAX_POINTS = 300  # Of a line: more cannot be seen.
_DASHES = ('', '5 3', '1.5 2.5', '7 2 1.5 2')  # Where colours are used again.


def lines(
  series: Mapping[str, Points],
  title: str,
  *,
  x_label: str = 'step',
  log_y: bool = False,
  styles: Mapping[str, str] | None = None,
) -> str:
  """A line for each series.

  Args:
    series: points by name; what is not finite, or on a log axis not positive, is left
      out.
    title: of the chart.
    x_label: of the horizontal axis.
    log_y: whether the vertical axis is logarithmic.
    styles: attributes of the lines by name; see `style`. By default in order.
  """
  shown = {name: _drawable(points, log_y) for name, points in series.items()}
  axes = _Axes([p for points in shown.values() for p in points], log_y)
  parts = [axes.draw(title, x_label)]
  for number, (name, points) in enumerate(shown.items()):
    points = [axes.place(*point) for point in _thinned(points)]
    attributes = styles[name] if styles else style(number)
    parts.append(_line(points, name, attributes))
  return _svg(title, parts)


def against(
  series: Mapping[str, Points], title: str, *, x_label: str, y_label: str
) -> str:
  """A cloud of points for each series, and the line on which both values are equal."""
  shown = {name: _drawable(points, False) for name, points in series.items()}
  values = [value for points in shown.values() for point in points for value in point]
  corners = [(min(values), min(values)), (max(values), max(values))]
  axes = _Axes(corners, False)
  diagonal = [axes.place(*corner) for corner in corners]
  parts = [axes.draw(title, x_label, y_label)]
  parts.append(_line(diagonal, 'equal', 'class="grid"'))
  for number, (name, points) in enumerate(shown.items()):
    places = [axes.place(*point) for point in _thinned(points)]
    parts.append(_dots(places, name, f'class="dots c{number % NUM_COLOURS}"'))
  return _svg(title, parts)


def scatter(groups: Mapping[str, Points], title: str) -> str:
  """Points of the plane, coloured by group; without axes, which mean nothing."""
  points = [point for group in groups.values() for point in group]
  size, margin = 230, 8
  low = [min(values) for values in zip(*points, strict=True)]
  high = [max(values) for values in zip(*points, strict=True)]
  extent = max(max(high[0] - low[0], high[1] - low[1]), 1e-12)
  scale = (size - 2 * margin) / extent
  parts = [f'<text class="title" x="{size / 2}" y="14">{html.escape(title)}</text>']
  for number, (name, group) in enumerate(groups.items()):
    places = [
      (margin + scale * (x - low[0]), margin + _TOP + scale * (y - low[1]))
      for x, y in group
    ]
    parts.append(
      _dots(places, name, f'class="dots" stroke="{hue(number, len(groups))}"')
    )
  return _svg(title, parts, size, size + _TOP)


def style(number: int) -> str:
  """Attributes of the line of a series: colours in order, then dashed."""
  dash = _DASHES[number // NUM_COLOURS % len(_DASHES)]
  return f'class="line c{number % NUM_COLOURS}" stroke-dasharray="{dash}"'


def hue(number: int, count: int) -> str:
  """A colour of a class, of so many, that is seen on black and on white."""
  # Neighbours on the wheel differ in lightness also.
  return f'hsl({360 * number / count:.0f} 70% {(45, 58)[number % 2]}%)'


def key(attributes: str) -> str:
  """A piece of line, for a legend."""
  line = f'<path d="M1 6h22" {attributes}/>'
  return f'<svg class="key" viewBox="0 0 24 12" width="24" height="12">{line}</svg>'


class _Axes:
  """Where values are on the chart."""

  def __init__(self, points: Points, log_y: bool):
    self._log_y = log_y
    xs, ys = zip(*points, strict=True) if points else ((0, 1), (1, 2))
    self._x = _range(xs)
    self._y = _range([math.log10(y) for y in ys] if log_y else ys)

  def place(self, x: float, y: float) -> tuple[float, float]:
    """The place of a point."""
    y = math.log10(y) if self._log_y else y
    right = _WIDTH - _RIGHT - _LEFT
    down = _HEIGHT - _BOTTOM - _TOP
    return (
      _LEFT + right * (x - self._x[0]) / (self._x[1] - self._x[0]),
      _TOP + down * (self._y[1] - y) / (self._y[1] - self._y[0]),
    )

  def draw(self, title: str, x_label: str, y_label: str = '') -> str:
    """Title, grid, and ticks with their labels."""
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts = [
      f'<text class="title" x="{middle}" y="14">{html.escape(title)}</text>',
      f'<text class="label" x="{middle}" y="{_HEIGHT - 4}">{html.escape(x_label)}'
      '</text>',
    ]
    if y_label:
      parts.append(
        f'<text class="label" transform="translate(9 {_HEIGHT / 2}) rotate(-90)">'
        f'{html.escape(y_label)}</text>'
      )
    for value, text in _ticks(*self._x):
      x, _ = self.place(value, 1.0)
      parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
      parts.append(
        f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 12}">{text}</text>'
      )
    for value, text in self._y_ticks():
      _, y = self.place(self._x[0], value)
      parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
      parts.append(
        f'<text class="tick left" x="{_LEFT - 4}" y="{y + 3:.1f}">{text}</text>'
      )
    return ''.join(parts)

  def _y_ticks(self):
    if not self._log_y:
      return _ticks(*self._y)
    low, high = math.ceil(self._y[0]), math.floor(self._y[1])
    every = max(1, (high - low) // 4)
    return [(10.0**x, f'1e{x}') for x in range(low, high + 1, every)]


def _drawable(points: Points, log_y: bool) -> Points:
  return [
    (x, y)
    for x, y in points
    if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)
  ]


def _thinned(points: Points) -> Points:
  """At most so many points, the last among them."""
  every = math.ceil(len(points) / _MAX_POINTS) or 1
  return points[::-1][::every][::-1]


def _range(values: Sequence[float]) -> tuple[float, float]:
  low, high = min(values), max(values)
  if low == high:
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room
  room = 0.04 * (high - low)
  return low - room, high + room


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
  """Three to six round numbers in a range, and how they are written."""
  raw = (high - low) / 4
  unit = 10.0 ** math.floor(math.log10(raw))
  step = unit * min((1, 2, 5, 10), key=lambda x: abs(x - raw / unit))
  first = math.ceil(low / step)
  values = [step * i for i in range(first, math.floor(high / step) + 1)]
  return [(value, f'{value:.4g}') for value in values]


def _line(places: Points, name: str, attributes: str) -> str:
  if len(places) == 1:
    return _dots(places, name, attributes.replace('class="line', 'class="dots'))
  path = 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places) if places else ''
  return f'<path d="{path}" {attributes}><title>{html.escape(name)}</title></path>'


def _dots(places: Points, name: str, attributes: str) -> str:
  """Round ends of lines without length, which are much shorter than circles."""
  path = ''.join(f'M{x:.1f} {y:.1f}h0' for x, y in places)
  return f'<path d="{path}" {attributes}><title>{html.escape(name)}</title></path>'


def _svg(
  title: str, parts: list[str], width: int = _WIDTH, height: int = _HEIGHT
) -> str:
  return (
    f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width} {height}" '
    f'width="{width}" height="{height}">{"".join(parts)}</svg>'
  )
