"""The tables of docs/results are those of configs/tables, and whole."""

import csv
import pathlib

import pytest

from sslhsic.tables import catalogue

RESULTS = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'results'
TEXT = (RESULTS / 'README.md').read_text(encoding='utf-8')
ABLATIONS = (
  'batch_size',
  'gamma',
  'kernel',
  'losses',
  'estimator',
  'output_size',
  'regularizer',
  'target_ema',
)


@pytest.mark.parametrize('name', ABLATIONS)
def test_every_row_has_three_seeds(name):
  table = catalogue.Catalogue('configs').table(name, 'digits')
  with (RESULTS / f'{name}-digits.csv').open(encoding='utf-8', newline='') as file:
    cells = list(csv.DictReader(file))
  rows = [row for row in table.rows if row in {cell['row'] for cell in cells}]
  # A loss that was added has a row before it has results.
  assert len(rows) == len(table.rows) or name == 'losses'
  expected = [(row, column) for row in rows for column in table.columns]
  assert [(cell['row'], cell['column']) for cell in cells] == expected
  assert {cell['seeds'] for cell in cells} == {'3'}


@pytest.mark.parametrize('name', ABLATIONS)
def test_table_in_the_text_is_the_one_that_was_written(name):
  lines = (RESULTS / f'{name}-digits.md').read_text(encoding='utf-8').splitlines()
  table = [line for line in lines if line.startswith('|')]
  assert '\n'.join(table) in TEXT
  assert f'--table={name} --base=digits --seeds=3' in lines[-1]
