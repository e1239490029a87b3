"""The parts of the report: what they show, worked out by hand."""

import base64
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from sklearn import decomposition, neighbors

from sslhsic.report import geometry, page, runs, sheets, svg
from sslhsic.runs import writers


def _paths(chart):
  """Path and class by title; also checks that the chart is well-formed."""
  root = ElementTree.fromstring(chart)
  return {
    path[0].text: (path.get('d'), path.get('class'))
    for path in root.iter('path')
    if len(path)
  }


def test_lines_lie_where_their_values_are():
  nan = float('nan')
  chart = svg.lines({'a & b': [(0, 1.0), (1, nan), (2, 3.0)], 'c': [(1, 2.0)]}, 'x<y')
  paths = _paths(chart)
  places = [tuple(map(float, p.split())) for p in paths['a & b'][0][1:].split('L')]
  (x1, y1), (x2, y2) = places
  assert paths['a & b'][1] == 'line c0'
  assert x1 < x2
  assert y1 > y2  # Up is less in SVG.
  x, y = map(float, re.match(r'M([\d.]+) ([\d.]+)h0', paths['c'][0]).groups())
  assert (x, y) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=0.1)
  assert paths['c'][1] == 'dots c1'
  assert 'x&lt;y' in chart


def test_logarithmic_lines_and_their_ticks():
  chart = svg.lines({'a': [(1, 1.0), (2, 0.0), (3, 1e-4), (5, 1e-8)]}, 't', log_y=True)
  places = [p.split() for p in _paths(chart)['a'][0][1:].split('L')]
  ys = [float(y) for _, y in places]
  assert len(ys) == 3  # Zero is not on the axis.
  assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.15)
  assert {'1e-8', '1e-4', '1e0'} <= set(re.findall(r'>(1e-?\d)<', chart))


def test_long_lines_are_thinned_and_keep_their_end():
  points = [(i, i % 7) for i in range(10_000)]
  path = _paths(svg.lines({'a': points}, 't'))['a'][0]
  assert 150 < path.count('L') < 301
  last_of_two = _paths(svg.lines({'a': [points[0], points[-1]]}, 't'))['a'][0]
  x = lambda path: path.rpartition('L')[2].split()[0]
  assert x(path) == x(last_of_two)


@pytest.mark.parametrize('points', [[], [(3, 2.0)], [(0, 5.0), (1, 5.0)]])
def test_charts_of_little_are_drawn(points):
  assert ElementTree.fromstring(svg.lines({'a': points}, 't')) is not None


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [
    (0.0, 1.0, ['0', '0.2', '0.4', '0.6', '0.8', '1']),
    (-3.1, 3.2, ['-2', '0', '2']),
    (95.0, 205.0, ['100', '120', '140', '160', '180', '200']),
  ],
)
def test_ticks_are_round(low, high, expected):
  assert [text for _, text in svg._ticks(low, high)] == expected


def test_sheet_shows_images_and_frames():
  images = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * 40
  images = np.broadcast_to(images, (2, 3, 8, 8, 1))
  address = sheets.sheet(images, np.array([[0, 1, 0], [0, 0, 0]], bool))
  header, _, png = address.partition(',')
  assert header == 'data:image/png;base64'
  picture = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), -1)
  side = 8 * 7 + 8  # Enlarged seven times, a gap of four on either side.
  assert picture.shape == (2 * side, 3 * side, 4)
  for row in range(2):
    for column in range(3):
      cell = picture[row * side :, column * side :][:side, :side]
      value = 40 * (3 * row + column)
      assert cell[side // 2, side // 2].tolist() == [value, value, value, 255]
      is_marked = cell[2, 2, 3] == 255
      assert is_marked == ((row, column) == (0, 1))


def test_neighbours_and_spectrum_are_those_of_scikit_learn():
  features = np.random.default_rng(0).normal(size=(40, 6))
  rows = np.array([3, 17])
  found = geometry.neighbours(features, rows, 5)
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  index = neighbors.NearestNeighbors(n_neighbors=6).fit(directions)
  np.testing.assert_array_equal(found, index.kneighbors(directions[rows])[1][:, 1:])
  pca = decomposition.PCA().fit(features)
  np.testing.assert_allclose(
    geometry.spectrum(features), pca.explained_variance_ratio_, rtol=1e-6
  )
  assert not geometry.spectrum(np.ones((5, 3))).any()


def test_maps_are_of_directions():
  features = np.random.default_rng(0).normal(size=(40, 6))
  lengths = np.random.default_rng(1).uniform(1, 9, (40, 1))
  maps, scaled = geometry.maps(features), geometry.maps(lengths * features)
  assert maps['t-SNE'].shape == (40, 2)
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  expected = decomposition.PCA(2).fit_transform(directions)
  np.testing.assert_allclose(np.abs(maps['PCA']), np.abs(expected), atol=1e-9)
  np.testing.assert_allclose(np.abs(scaled['PCA']), np.abs(maps['PCA']), atol=1e-9)


def test_text_is_escaped():
  section = page.Section('<a>', page.table(['', '<b>'], [['<c>', '&']], ['<d>']))
  text = page.page('<e>', [section])
  assert not re.search('<[acde]>', text.replace('<a href', ''))
  assert '&lt;b&gt;' in text


RESULTS = """{
  "knn_top1": 0.12345, "device": "x", "few_label_top1": {"1": 0.5, "5": 0.75},
  "validation_losses": {"1": 2.0}, "protocol": {"knn_top1": "in words"}
}"""


def test_runs_are_found_and_compared(tmp_path):
  for name, gamma in (('one', 1.0), ('deep/two', 3.0)):
    directory = tmp_path / name
    directory.mkdir(parents=True)
    config = f'{{"loss": {{"gamma": {gamma}, "name": "ssl_hsic"}}, "seed": 0}}'
    (directory / 'config.json').write_text(config)
  (tmp_path / 'one' / 'results.json').write_text(RESULTS)
  writers.write_atomically(tmp_path / 'one' / 'metrics.jsonl', '{"step": 1}\n')
  two, one = runs.find([tmp_path])
  assert (two.name, one.name) == ('deep/two', 'one')
  assert (one.rows, two.rows, two.results) == ([{'step': 1}], [], {})
  assert runs.of_one_program([one, two]) == [[one, two]]
  assert runs.differences([one, two]) == (['loss.gamma'], [['1.0'], ['3.0']])
  names = ['knn_top1', 'few_label_top1.1', 'few_label_top1.5']
  assert runs.metrics([one, two]) == (names, [['0.1235', '0.5', '0.75'], [''] * 3])
  with pytest.raises(ValueError, match=r'no run in .*nothing: give working'):
    runs.find([tmp_path / 'nothing'])
