"""Charts: where their points are, what is left out, which lines can be told apart."""

import numpy as np
import pytest
from matplotlib import colors

from sslhsic.plots import charts, panels

NAN = float('nan')


@pytest.fixture
def axis():
  return panels.open_figure()[1][0]


def test_missing_values_are_gaps(axis):
  series = {'a': [(0, 1.0), (1, NAN), (2, 3.0), (3, float('inf'))], 'b': [(1, 2.0)]}
  charts.lines(axis, series)
  first, second = axis.lines
  np.testing.assert_array_equal(first.get_xdata(), [0, 1, 2, 3])
  np.testing.assert_array_equal(first.get_ydata(), [1, NAN, 3, NAN])
  assert [line.get_label() for line in axis.lines] == ['a', 'b']
  assert second.get_markevery() == [0]


def test_point_between_gaps_is_marked(axis):
  values = [float(i) for i in range(100)]
  values[49] = values[51] = NAN
  charts.lines(axis, {'a': list(enumerate(values)), 'b': [(i, 1.0) for i in range(99)]})
  assert axis.lines[0].get_markevery() == [50]
  assert axis.lines[1].get_marker() == ''


def test_logarithmic_axes_leave_out_what_is_not_positive(axis):
  charts.lines(axis, {'a': [(0, 1.0), (1, 0.0), (10, -1.0)]}, log_x=True, log_y=True)
  np.testing.assert_array_equal(axis.lines[0].get_xdata(), [NAN, 1, 10])
  np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1, NAN, NAN])
  assert axis.get_xscale() == axis.get_yscale() == 'log'
  assert axis.yaxis.get_major_formatter()(1e-8) == '1e−08'


@pytest.mark.parametrize('points', [[], [(3, 2.0)], [(0, 5.0), (1, 5.0)], [(0, NAN)]])
@pytest.mark.parametrize('log_y', [False, True])
def test_charts_of_little_are_drawn(points, log_y):
  figure, (axis,) = panels.open_figure()
  charts.lines(axis, {'a': points}, log_y=log_y)
  assert panels.svg(figure, 'chart').startswith('<svg')


def test_both_axes_have_one_range_with_the_line_of_equality(axis):
  charts.clouds(axis, {'a': [(0.0, 2.0), (1.0, 5.0)]})
  charts.equality(axis)
  low, high = axis.get_xlim()
  assert axis.get_ylim() == (low, high)
  assert low < 0
  assert high > 5
  line = axis.lines[-1]
  np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
  np.testing.assert_array_equal(line.get_xdata(), [low, high])


def _lab(linear):
  """CIELAB of linear sRGB."""
  to_xyz = np.array(
    [
      [0.4124, 0.3576, 0.1805],
      [0.2126, 0.7152, 0.0722],
      [0.0193, 0.1192, 0.9505],
    ]
  )
  white = to_xyz.sum(axis=1)
  f = np.cbrt(linear @ to_xyz.T / white)
  x, y, z = f.T
  return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


# Machado, Oliveira and Fernandes 2009, severity 1.0: protanopia, deuteranopia, none.
VISION = {
  'protanopia': [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  'deuteranopia': [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
  'trichromacy': np.eye(3),
}


@pytest.mark.parametrize('vision', VISION)
def test_lines_can_be_told_apart(vision):
  """Far more than a difference that is just noticed, about 2.3 in CIELAB."""
  srgb = np.array([colors.to_rgb(colour) for colour in panels.COLOURS])
  linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
  seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
  lab = _lab(seen)
  distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
  assert distances[np.triu_indices(len(lab), 1)].min() > 15


def test_styles_do_not_repeat_soon():
  styles = [tuple(panels.style(i).values()) for i in range(30)]
  assert len(set(styles)) == 30
  for count in (3, 10, 25):
    assert len(set(panels.class_colours(count))) == count
