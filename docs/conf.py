"""Sphinx builds the pages as a site: `make docs`."""

import pathlib
import re

project = 'sslhsic'
author = 'The sslhsic authors'
html_title = 'sslhsic: self-supervised learning by kernel dependence maximisation'
html_theme = 'furo'

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
# Tables that `experiments.reproduce` wrote, next to the same numbers as CSV.
_TABLES = pathlib.Path(__file__).parent.glob('results/*.csv')
exclude_patterns = [f'results/{path.stem}.md' for path in _TABLES]

# Pages are the Markdown that GitHub shows, with its anchors of headings.
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_ivar = True
# Docstrings have names and code in single backquotes.
default_role = 'literal'


def _as_restructured_text(app, what, name, obj, options, lines):
  """Makes a docstring reStructuredText, in place; Napoleon reads its sections then.

  An indented block of the text is an equation, whose lines and symbols must stay.
  """
  del app, what, name, obj, options
  text, previous, in_block = [], '', False
  for line in lines:
    indent = len(line) - len(line.lstrip())
    if indent and not in_block and text and not text[-1]:
      in_block = not previous.startswith(' ')
      text += ['::', ''] if in_block else []
    elif line and not indent:
      in_block = False
    # The odd parts are in backquotes.
    parts = re.split(r'(`[^`]*`)', line)
    parts[::2] = [
      part if in_block else re.sub(r'[|*]', r'\\\g<0>', part) for part in parts[::2]
    ]
    text.append(''.join(parts))
    previous = line or previous
  lines[:] = text


def setup(app):
  """Connects the function above."""
  app.connect('autodoc-process-docstring', _as_restructured_text, priority=400)
