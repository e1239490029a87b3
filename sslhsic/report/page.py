"""The page itself: one file, nothing loaded from elsewhere, without scripts."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from sslhsic.report import svg


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


def legend(names: Sequence[str]) -> str:
  """Which line is which, in the order of `svg.style`."""
  items = ''.join(
    f'<li>{svg.key(svg.style(i))}{html.escape(name)}</li>'
    for i, name in enumerate(names)
  )
  return f'<ul class="legend">{items}</ul>'


def classes(names: Sequence[str]) -> str:
  """Which colour is which group of `svg.scatter`."""
  items = ''.join(
    f'<li><span style="color:{svg.hue(i, len(names))}">●</span> '
    f'{html.escape(name)}</li>'
    for i, name in enumerate(names)
  )
  return f'<ul class="legend">{items}</ul>'


def side_by_side(parts: Sequence[str]) -> str:
  """Charts or figures in a row, as many as there is room for."""
  return f'<div class="charts">{"".join(parts)}</div>'


def picture(address: str, caption: str) -> str:
  """An image with what it shows."""
  text = html.escape(caption)
  image = f'<img src="{address}" alt="{text}">'
  return f'<figure>{image}<figcaption>{text}</figcaption></figure>'


_LIGHT = """--ink:#1c1c1c;--paper:#fff;--soft:#5c5c5c;--rule:#dcdcdc;--band:#f5f5f5;
--c0:#0067a8;--c1:#c44e00;--c2:#00795a;--c3:#a8387f;--c4:#8a6a00;--c5:#5b4fc4;--c6:#b3242b;
--c7:#4d6470;"""
_DARK = """--ink:#e8e8e8;--paper:#16181b;--soft:#a3a7ab;--rule:#34383d;--band:#1f2226;
--c0:#5db4f0;--c1:#ff9a57;--c2:#3fc79b;--c3:#ef8cc9;--c4:#dcb53c;--c5:#a79cf7;--c6:#ff7a7a;
--c7:#9db6c2;"""
_COLOURS = ''.join(f'.c{i}{{stroke:var(--c{i})}}' for i in range(svg.NUM_COLOURS))

_STYLE = f"""
:root{{{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media print{{:root{{{_LIGHT}}}}}
body{{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1280px;margin:0 auto;padding:1rem 1.5rem}}
h1{{font-size:1.5rem}}h2{{font-size:1.2rem;margin-top:2.2rem;
border-bottom:1px solid var(--rule)}}h3{{font-size:1rem;margin:1.2rem 0 .3rem}}
nav a{{margin-right:1.2rem;color:var(--c0)}}
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
.key{{vertical-align:-1px;margin-right:.4rem}}
figure{{margin:0}}figcaption{{color:var(--soft);font-size:.85rem}}
img{{max-width:100%}}
svg text{{fill:var(--ink);font:11px system-ui,sans-serif;text-anchor:middle}}
svg .title{{font-weight:600;font-size:12px}}svg .label,svg .tick{{fill:var(--soft)}}
svg .left{{text-anchor:end}}
.grid{{stroke:var(--rule);fill:none}}
.line{{fill:none;stroke-width:1.5;stroke-linejoin:round}}
.dots{{fill:none;stroke-width:4;stroke-linecap:round}}
{_COLOURS}
@media print{{nav{{display:none}}.wide{{overflow:visible}}
th,td{{padding:.1rem .3rem;overflow-wrap:anywhere}}body{{padding:0;font-size:11px}}
h2,h3{{break-after:avoid}}figure,svg,tr{{break-inside:avoid}}}}
"""
