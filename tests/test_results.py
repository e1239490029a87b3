"""The tables of docs/results are those of configs/tables, and whole."""

import csv
import pathlib

import pytest

from sslhsic.tables import catalogue

RESULTS = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'results'
# The pages that show the tables of a base.
PAGES = {'digits': 'README.md', 'fashion_mnist_small': 'fashion_mnist.md'}
TABLES = [
  *(
    (name, 'digits')
    for name in (
      'batch_size',
      'gamma',
      'kernel',
      'losses',
      'estimator',
      'output_size',
      'regularizer',
      'target_ema',
    )
  ),
  *(
    (name, 'fashion_mnist_small')
    for name in (
      'losses',
      'estimator',
      'kernel',
      'regularizer',
      'gamma',
      'temperature',
      'semi_supervised',
      'transfer_linear',
    )
  ),
]


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_every_row_has_three_seeds(name, base):
  table = catalogue.Catalogue('configs').table(name, base)
  with (RESULTS / f'{name}-{base}.csv').open(encoding='utf-8', newline='') as file:
    cells = list(csv.DictReader(file))
  cells = [cell for cell in cells if cell['row'] not in table.baselines]
  rows = [row for row in table.rows if row in {cell['row'] for cell in cells}]
  # A loss that was added has a row before it has results.
  missing = set(table.rows) - set(rows)
  assert not missing or (name == 'losses' and 'supervised network' not in missing)
  expected = [(row, column) for row in rows for column in table.columns]
  assert [(cell['row'], cell['column']) for cell in cells] == expected
  assert {cell['seeds'] for cell in cells} == {'3'}


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_table_in_the_text_is_the_one_that_was_written(name, base):
  lines = (RESULTS / f'{name}-{base}.md').read_text(encoding='utf-8').splitlines()
  table = [line for line in lines if line.startswith('|')]
  assert '\n'.join(table) in (RESULTS / PAGES[base]).read_text(encoding='utf-8')
  assert f'--table={name} --base={base} --seeds=3' in lines[-1]


@pytest.mark.parametrize('path', sorted(RESULTS.glob('*.tex')), ids=lambda x: x.stem)
def test_latex_is_ascii(path):
  assert path.read_text(encoding='utf-8').isascii()
