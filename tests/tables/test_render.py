"""Tables as they are printed, against ones worked out by hand."""

import json
import pathlib

import pytest

from sslhsic.tables import catalogue, render, results
from sslhsic.tables import table as table_lib

TABLE = table_lib.parse(
  'name',
  'digits',
  {
    'title': 'A table',
    'note': 'A note.',
    'steps': {'pretrain': 'pretrain/digits', 'depth': 'depth/shapes'},
    'columns': {
      'top-1': ('pretrain', 'knn_top1', 'percent'),
      'rms': ('depth', 'rms', 'plain'),
    },
    'rows': {'½·E Var k': {}, 'a | b_c': {'seed': 1}, 'BYOL': None},
    'published': {'BYOL': {'top-1': 74.3}},
  },
)
RESULTS = results.Results(
  values={
    # Mean 0.6, deviations 0.1, 0 and 0.1: standard deviation √(0.02/2) = 0.1.
    '½·E Var k': {'top-1': [0.5, 0.6, 0.7], 'rms': [0.5, 0.5, 0.5]},
    'a | b_c': {'top-1': [0.25], 'rms': []},
  },
  num_seeds=3,
  protocols={'top-1': 'cosine kNN', 'rms': ''},
  num_runs=7,
  num_missing=2,
  seconds=5400.0,
  environments={'device': ['1 × cpu'], 'jax': ['0.10.1'], 'commit': []},
)
CATALOGUE = catalogue.Catalogue('configs')
GRID = render.grid(TABLE, RESULTS, 'python -m experiments.reproduce')


def test_markdown():
  assert render.markdown(GRID) == (
    '|  | top-1 | top-1, published | rms |\n'
    '|---|---|---|---|\n'
    '| ½·E Var k | 60.0 ± 10.0 |  | 0.500 ± 0.000 |\n'
    '| a \\| b_c | 25.0 (1 of 3) |  |  |\n'
    '| BYOL |  | 74.3 |  |\n'
    '\n'
    'A table, base digits; 3 seeds, mean ± standard deviation. A note.\n'
    '\n'
    'top-1: cosine kNN.\n'
    '\n'
    '7 runs, 1.5 hours in all; 2 are missing; device 1 × cpu; jax 0.10.1.\n'
    '\n'
    'Command: python -m experiments.reproduce\n'
  )


def test_csv():
  header, first, *rest = render.csv_text(TABLE, RESULTS).splitlines()
  assert header == 'row,column,mean,std,seeds,published'
  row, column, mean, std, seeds, published = first.split(',')
  assert (row, column, seeds, published) == ('½·E Var k', 'top-1', '3', '')
  assert float(mean) == pytest.approx(60)
  assert float(std) == pytest.approx(10)
  assert rest == [
    '½·E Var k,rms,0.5,0.0,3,',
    'a | b_c,top-1,25.0,,1,',
    'BYOL,top-1,,,0,74.3',
  ]


def test_baselines_stand_above():
  baselines = {'pixels': {'top-1': 'representations.pixels.knn_top1'}}
  table = TABLE._replace(baselines=baselines)
  found = RESULTS._replace(values={'pixels': {'top-1': [0.8]}, **RESULTS.values})
  assert render.grid(table, found).rows[0] == ['pixels', '80.0 (1 of 3)', '', '']
  assert render.csv_text(table, found).splitlines()[1] == 'pixels,top-1,80.0,,1,'


def test_latex():
  text = render.latex(GRID)
  assert r'\begin{tabular}{lrrr}' in text
  assert r'a | b\_c & 25.0 (1 of 3) &  &  \\' in text
  assert r'\ensuremath{\frac{1}{2}}\ensuremath{\cdot}E Var k &' in text
  assert text.isascii()


@pytest.mark.parametrize('name', CATALOGUE.names())
def test_latex_of_every_table_is_ascii(name):
  for base in CATALOGUE.bases_of(name):
    table = CATALOGUE.table(name, base)
    found = RESULTS._replace(
      values={row: {x: [0.5, 0.6] for x in table.columns} for row in table.rows},
      protocols={},
    )
    assert render.latex(render.grid(table, found)).isascii()


def test_json_has_all_that_is_shown():
  found = json.loads(render.json_text(GRID))
  assert render.Grid(**found) == GRID


def test_metrics_are_found_by_their_path():
  result = {
    'few_label_top1': {'1': 0.5},
    'protocol': {
      'digits': {'linear_top1': 'all'},
      'digits_10pct': {'linear_top1': 'few'},
    },
  }

  class Job:
    workdir = pathlib.Path('DIR')
    results = lambda self: result | ENVIRONMENT

  table = TABLE._replace(columns={'x': table_lib.Column('s', 'few_label_top1.1', '')})
  job = Job()
  found = results.collect(table, {'row': [{'s': job}, {'s': job}]})
  assert found.values == {'row': {'x': [0.5, 0.5]}}
  assert (found.num_runs, found.seconds, found.num_seeds) == (1, 7.0, 2)
  assert found.environments['commit'] == ['0123456789-dirty']
  metric = 'digits_10pct_top1'
  assert results._protocol(result, metric) == 'few'
  table = TABLE._replace(columns={'x': table_lib.Column('s', metric, '')})
  with pytest.raises(ValueError, match=r'DIR/results\.json has no number digits_10pct'):
    results.collect(table, {'row': [{'s': job}]})


ENVIRONMENT = {
  'wall_time_s': 7.0,
  'device': '1 × cpu',
  'versions': {'jax': '0.10.1'},
  'git_commit': 4 * '0123456789' + '-dirty',
}
