"""Tables as text, against ones written by hand."""

from sslhsic.tables import printed


def test_markdown_escapes_bars():
  text = printed.markdown(['', 'n'], [['a|b', 1], ['c', 2.5]])
  assert text == '|  | n |\n|---|---|\n| a\\|b | 1 |\n| c | 2.5 |'


def test_columns_are_aligned():
  rows = [('', 'x'), ('name', 12)]
  assert printed.columns(rows, 5) == '         x\n name   12'
  assert printed.columns(rows, 5, first=6) == '          x\nname     12'
