"""The page itself: one file, nothing loaded from elsewhere, without scripts."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib import axes, colors

from sslhsic.plots import panels

_CHART = 3.1, 2.0  # Inches.


class Section(NamedTuple):
  """A part of the page: its heading, and HTML."""

  title: str
  body: str


def page(title: str, sections: Sequence[Section]) -> str:
  """The whole document."""
  links = ''.join(
    f'<a href="#s{i}">{html.escape(section.title)}</a>'
    for i, section in enumerate(sections)
  )
  bodies = ''.join(
    f'<section id="s{i}"><h2>{html.escape(section.title)}</h2>{section.body}'
    '</section>\n'
    for i, section in enumerate(sections)
  )
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">'
    f'<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>'
    f'<nav>{links}</nav>\n{bodies}</body></html>\n'
  )


def table(
  header: Sequence[str], rows: Sequence[Sequence[str]], caption: Sequence[str] = ()
) -> str:
  """A table whose first column names the rows, with paragraphs below."""
  cells = ''.join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
  lines = ''.join(
    f'<tr><th scope="row">{html.escape(row[0])}</th>'
    + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row[1:])
    + '</tr>'
    for row in rows
  )
  return (
    f'<div class="wide"><table><thead><tr>{cells}</tr></thead>'
    f'<tbody>{lines}</tbody></table></div>' + ''.join(map(note, caption))
  )


def note(text: str) -> str:
  """A paragraph of small print."""
  return f'<p class="note">{html.escape(text)}</p>'


def heading(text: str) -> str:
  """Of a part of a section."""
  return f'<h3>{html.escape(text)}</h3>'


@panels.look()
def chart(
  title: str,
  draw: Callable[[axes.Axes], None],
  size: tuple[float, float] = _CHART,
  **labels: str,
) -> str:
  """A figure of one panel.

  Args:
    title: of the panel.
    draw: draws into it.
    size: in inches.
    **labels: of the axes, as in `matplotlib.axes.Axes.set`.
  """
  figure, (axis,) = panels.open_figure(size=size)
  draw(axis)
  axis.set(title=title, **labels)
  return panels.svg(figure, title)


def legend(names: Sequence[str]) -> str:
  """Which line is which, in the order of `charts.lines`."""
  keys = []
  for style in map(panels.style, range(len(names))):
    dashes = _DASHES[style['linestyle']]
    border = f'2px {dashes} {panels.variable(style["color"])}'
    keys.append(f'<span class="key" style="border-top:{border}"></span>')
  return _legend(keys, names)


def classes(names: Sequence[str]) -> str:
  """Which colour is which group of `charts.clouds`."""
  colours = map(panels.variable, panels.class_colours(len(names)))
  return _legend([f'<span style="color:{x}">●</span> ' for x in colours], names)


def _legend(keys: Sequence[str], names: Sequence[str]) -> str:
  items = ''.join(
    f'<li>{key}{html.escape(name)}</li>' for key, name in zip(keys, names, strict=True)
  )
  return f'<ul class="legend">{items}</ul>'


def side_by_side(parts: Sequence[str]) -> str:
  """Charts or figures in a row, as many as there is room for."""
  return f'<div class="charts">{"".join(parts)}</div>'


def image(address: str, caption: str) -> str:
  """An image with what it shows."""
  text = html.escape(caption)
  shown = f'<img src="{address}" alt="{text}">'
  return f'<figure>{shown}<figcaption>{text}</figcaption></figure>'


_DASHES = {'-': 'solid', '--': 'dashed', ':': 'dotted'}  # In CSS.


def _lightened(colour: str) -> str:
  """A colour of a figure as it is in the dark: a third of the way to white."""
  return colors.to_hex([(2 * x + 1) / 3 for x in colors.to_rgb(colour)])


# Values of the variables in which `panels.svg` writes the colours of figures.
_LIGHT = {
  'ink': panels.INK,
  'paper': '#ffffff',
  'soft': panels.SOFT,
  'rule': panels.RULE,
  'band': '#f5f5f5',
  'link': '#0067a8',
  **{f'c{i}': colour for i, colour in enumerate(panels.COLOURS)},
}
_DARK = {
  'ink': '#e8e8e8',
  'paper': '#16181b',
  'soft': '#a3a7ab',
  'rule': '#34383d',
  'band': '#1f2226',
  'link': '#5db4f0',
  **{f'c{i}': _lightened(colour) for i, colour in enumerate(panels.COLOURS)},
}


def _variables(colours: Mapping[str, str]) -> str:
  return ''.join(f'--{name}:{colour};' for name, colour in colours.items())


# Braces are doubled: this is CSS inside an f-string.
_STYLE = f"""
:root{{{_variables(_LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}
@media print{{:root{{{_variables(_LIGHT)}}}}}
body{{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1280px;margin:0 auto;padding:1rem 1.5rem}}
h1{{font-size:1.5rem}}h2{{font-size:1.2rem;margin-top:2.2rem;
border-bottom:1px solid var(--rule)}}h3{{font-size:1rem;margin:1.2rem 0 .3rem}}
nav a{{margin-right:1.2rem;color:var(--link)}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0}}
th,td{{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--rule)}}
th{{font-weight:600}}thead th{{background:var(--band)}}
th:first-child{{text-align:left}}
.note{{color:var(--soft);font-size:.85rem;margin:.3rem 0;max-width:75rem;
overflow-wrap:anywhere}}
.charts{{display:flex;flex-wrap:wrap;gap:.5rem}}
.legend{{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;
font-size:.85rem}}
.key{{display:inline-block;width:1.6rem;vertical-align:.25rem;margin-right:.4rem}}
figure{{margin:0}}figcaption{{color:var(--soft);font-size:.85rem}}
img{{max-width:100%}}
svg{{max-width:100%;height:auto;stroke-linejoin:round}}
svg text{{font-family:system-ui,sans-serif!important}}
@media print{{nav{{display:none}}.wide{{overflow:visible}}
th,td{{padding:.1rem .3rem;overflow-wrap:anywhere}}body{{padding:0;font-size:11px}}
h2,h3{{break-after:avoid}}figure,svg,tr{{break-inside:avoid}}}}
"""
