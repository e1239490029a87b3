"""Tables as text, against ones written by hand."""

from sslhsic.tables import printed


def test_markdown_escapes_bars():
  text = printed.markdown(['', 'n'], [['a|b', 1], ['c', 2.5]])
  assert text == '|  | n |\n|---|---|\n| a\\|b | 1 |\n| c | 2.5 |'


def test_columns_are_aligned():
  rows = [('', 'x'), ('name', 12)]
  assert printed.columns(rows, 5) == '         x\n name   12'
  assert printed.columns(rows, 5, first=6) == '          x\nname     12'


def test_count():
  assert printed.count(1, 'run') == '1 run'
  assert printed.count(0, 'run') == '0 runs'
  assert printed.count(1200, 'device') == '1,200 devices'
