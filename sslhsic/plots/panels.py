"""Figures of panels in the project's look, as PNG files or as SVG inside a page."""

import colorsys
import contextlib
import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib import axes, colors, figure

from sslhsic import atomic, storage

# Ten colours that colour-blind readers tell apart: Petroff 2021, "Accessible Color
# Sequences for Data Visualization", arXiv:2107.02270.
COLOURS = (
  '#3f90da',
  '#ffa90e',
  '#bd1f01',
  '#832db6',
  '#94a4a2',
  '#a96b59',
  '#e76300',
  '#b9ac70',
  '#717581',
  '#92dadd',
)
LINE_STYLES = ('-', '--', ':')  # The next one where colours are used again.

# Colours of everything that is not data.
INK, SOFT, RULE = '#1c1c1c', '#5c5c5c', '#dcdcdc'

_LOOK = {
  'font.family': 'sans-serif',
  'font.sans-serif': ['DejaVu Sans'],  # Comes with Matplotlib.
  'axes.titlesize': 10,
  'figure.labelsize': 9,
  'legend.fontsize': 8,
  'axes.labelsize': 9,
  'axes.labelcolor': SOFT,
  'axes.edgecolor': SOFT,
  'axes.linewidth': 0.6,
  'axes.axisbelow': True,
  'axes.grid': True,
  'axes.prop_cycle': matplotlib.cycler(color=COLOURS),
  'axes.formatter.useoffset': False,
  'grid.color': RULE,
  'grid.linewidth': 0.6,
  'text.color': INK,
  'xtick.color': SOFT,
  'ytick.color': SOFT,
  'xtick.labelsize': 8,
  'ytick.labelsize': 8,
}
_DPI = 110  # Of PNG files.
_MARGINS = 0.7, 0.1, 0.55, 0.3  # Left, right, bottom and top of a panel, in inches.

# The style sheet of a page says what these colours are, in the light and in the dark.
_VARIABLES = {colour: f'var(--c{i})' for i, colour in enumerate(COLOURS)} | {
  INK: 'var(--ink)',
  SOFT: 'var(--soft)',
  RULE: 'var(--rule)',
}


def look() -> contextlib.AbstractContextManager:
  """The context, or the decorator, of what adds legends and the like to panels."""
  return matplotlib.rc_context(_LOOK)


def style(number: int) -> dict[str, Any]:
  """Colour and dashes of the line of a series, by its number."""
  return {
    'color': COLOURS[number % len(COLOURS)],
    'linestyle': LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)],
  }


def class_colours(count: int) -> list[str]:
  """A colour for each of so many classes; many are spread over the colour wheel."""
  # Not `COLOURS`, two of which are grey: dots, unlike lines, have no dashes.
  if count <= len(named := matplotlib.colormaps['tab10'].colors):
    return [colors.to_hex(colour) for colour in named[:count]]
  # Neighbours on the wheel differ in lightness also.
  return [
    colors.to_hex(colorsys.hls_to_rgb(i / count, (0.45, 0.58)[i % 2], 0.7))
    for i in range(count)
  ]


def variable(colour: str) -> str:
  """A colour as the style sheet of a page writes it; see `svg`."""
  return _VARIABLES.get(colour, colour)


def open_figure(
  count: int = 1,
  *,
  columns: int = 4,
  size: tuple[float, float] = (3.6, 2.6),
  is_fixed: bool = False,
) -> tuple[figure.Figure, list[axes.Axes]]:
  """Makes a figure of panels, row by row.

  Args:
    count: how many panels.
    columns: how many at most side by side.
    size: of a panel, in inches.
    is_fixed: whether panels are where numbers at their ticks have room, and not placed
      by all that is written, which takes longer than to draw them.

  Returns:
    The figure and its `count` panels.
  """
  columns = min(columns, count)
  rows = -(-count // columns)
  with look():
    opened = figure.Figure(
      figsize=(columns * size[0], rows * size[1]),
      layout=None if is_fixed else 'constrained',
    )
    if is_fixed:
      opened.subplots_adjust(**_places(rows, columns, size))
    panels = opened.subplots(rows, columns, squeeze=False).ravel().tolist()
  for unused in panels[count:]:
    unused.remove()
  return opened, panels[:count]


def _places(rows: int, columns: int, size: tuple[float, float]) -> dict[str, float]:
  """Parts of a figure, for `Figure.subplots_adjust`."""
  (width, height), (left, right, bottom, top) = size, _MARGINS
  return {
    'left': left / (columns * width),
    'right': 1 - right / (columns * width),
    'bottom': bottom / (rows * height),
    'top': 1 - top / (rows * height),
    'wspace': (left + right) / (width - left - right),
    'hspace': (bottom + top) / (height - bottom - top),
  }


def save(drawn: figure.Figure, path: storage.Path) -> None:
  """Writes a figure as PNG, whole or not at all."""
  with look(), atomic.opened(path) as file:
    drawn.savefig(file, format='png', dpi=_DPI)


def svg(drawn: figure.Figure, label: str) -> str:
  """A figure as an SVG element of an HTML page, in the colours of its style sheet.

  Text stays text. Only what is seen is kept: Matplotlib's files are several times as
  large.

  Args:
    drawn: the figure; `COLOURS`, `INK`, `SOFT` and `RULE` become the variables --c0,
      --c1, …, --ink, --soft and --rule of the page, everything else stays as it is.
    label: what it shows, for those who do not see it.
  """
  file = io.BytesIO()
  # The salt makes equal figures equal files.
  text_and_names = {'svg.fonttype': 'none', 'svg.hashsalt': label}
  with look(), matplotlib.rc_context(text_and_names):
    drawn.savefig(file, format='svg', transparent=True)
  root = ElementTree.fromstring(file.getvalue())
  for element in root.iter():
    _simplify(element)
  root.attrib |= {'role': 'img', 'aria-label': label}
  return ElementTree.tostring(root, encoding='unicode')


def _simplify(element: ElementTree.Element) -> None:
  """Drops what an HTML page does not need of an element."""
  element.tag = _local(element.tag)  # HTML has no name spaces.
  element.attrib = {
    _local(name): _shortened(name, value)
    for name, value in element.attrib.items()
    # Groups are not referred to, and nothing is turned by -0 degrees.
    if (element.tag, name) != ('g', 'id') and not value.startswith('rotate(-0 ')
  }
  for child in list(element):
    child.tail = None
    # The rules of a style would hold in all of the page.
    if _local(child.tag) in ('metadata', 'style'):
      element.remove(child)
  if element.text and element.text.isspace():
    element.text = None
  styles = {child.get('style') for child in element if _local(child.tag) == 'use'}
  if len(styles) == 1:  # Markers of one colour, which they inherit.
    element.set('style', _shortened('style', styles.pop()))
    for child in element:
      child.attrib.pop('style', None)


def _local(name: str) -> str:
  """A name without its name space."""
  return name.rpartition('}')[2]


def _shortened(name: str, value: str) -> str:
  if name == 'style':  # The font is the page's.
    value = re.sub(r'font-family: [^;]*; ', '', value)
    for colour, variable in _VARIABLES.items():
      value = value.replace(colour, variable)
  if name in ('d', 'x', 'y'):
    value = re.sub(r'(\.\d\d)\d+', r'\1', value)  # Of a point: more is not seen.
    value = re.sub(r'\s*([A-Za-z])\s*', r'\1', value).strip()
  return value
