"""Tables as text: Markdown, and columns for a terminal."""

from collections.abc import Sequence
from typing import Any


def markdown(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
  """A table in Markdown, without a line break at its end."""
  escaped = [[str(cell).replace('|', r'\|') for cell in row] for row in [header, *rows]]
  lines = ['| ' + ' | '.join(row) + ' |' for row in escaped]
  lines.insert(1, '|' + '---|' * len(header))
  return '\n'.join(lines)


def count(number: int, noun: str) -> str:
  """A number of things, '1 device' or '8 devices'."""
  return f'{number:,} {noun}{"s" * (number != 1)}'


def columns(rows: Sequence[Sequence[Any]], width: int, first: int = 0) -> str:
  """Lines of right-aligned cells.

  Args:
    rows: cells, the header among them.
    width: of a column, in characters.
    first: width of the first column, which is left-aligned; 0: as all others.
  """
  lines = []
  for name, *cells in rows:
    begin = f'{name:<{first}}' if first else f'{name:>{width}}'
    lines.append(begin + ''.join(f'{cell:>{width}}' for cell in cells))
  return '\n'.join(lines)
