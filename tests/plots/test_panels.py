"""Figures: files that are whole, and SVG that a page can hold."""

import re
from xml.etree import ElementTree

import cv2
import pytest

from sslhsic.plots import charts, panels


def test_figure_has_the_panels_that_were_asked_for(tmp_path):
  figure, axes = panels.open_figure(5, columns=3, size=(2.0, 1.0))
  assert len(axes) == len(figure.axes) == 5
  assert axes[3].get_subplotspec().rowspan.start == 1
  panels.save(figure, tmp_path / 'figure.png')
  assert cv2.imread(str(tmp_path / 'figure.png')).shape == (220, 660, 3)
  assert [path.name for path in tmp_path.iterdir()] == ['figure.png']


def test_fixed_panels_have_their_margins():
  figure, axes = panels.open_figure(5, columns=3, size=(2.0, 1.5), is_fixed=True)
  width, height = figure.get_size_inches()
  left, right, bottom, top = panels._MARGINS
  for number, axis in enumerate(axes):
    row, column = divmod(number, 3)
    found = axis.get_position()
    assert found.x0 * width == pytest.approx(2 * column + left)
    assert found.x1 * width == pytest.approx(2 * (column + 1) - right)
    assert found.y0 * height == pytest.approx(1.5 * (1 - row) + bottom)
    assert found.y1 * height == pytest.approx(1.5 * (2 - row) - top)


def _chart(points, title='a < b'):
  figure, (axis,) = panels.open_figure(size=(3.0, 2.0))
  charts.lines(axis, {'line': points})
  axis.set(title=title, xlim=(0, 10), ylim=(0, 10))
  return panels.svg(figure, title)


def test_svg_is_an_element_of_a_page():
  text = _chart([(i / 4, i / 4) for i in range(40)])
  root = ElementTree.fromstring(text)
  assert root.tag == 'svg'
  assert root.get('aria-label') == 'a < b'
  assert not {'style', 'metadata'} & {element.tag for element in root.iter()}
  assert 'a &lt; b' in text
  assert 'http' not in text
  named = {element.get('id') for element in root.iter()}
  for name in re.findall(r'(?:url\(|href=")#(\w+)', text):
    assert name in named
  assert '#3f90da' not in text
  assert text == _chart([(i / 4, i / 4) for i in range(40)])


def test_svg_has_the_points_at_their_places():
  """Against the frame of the panel, which is from 0 to 10."""
  root = ElementTree.fromstring(_chart([(0, 10), (5, 2.5), (10, 10), *[(10, 10)] * 30]))
  (line,) = (x for x in root.iter('path') if 'var(--c0)' in x.get('style', ''))
  (frame,) = (x for x in root.iter('rect'))
  left, top, width, height = (
    float(frame.get(x)) for x in ('x', 'y', 'width', 'height')
  )
  places = [tuple(map(float, p.split())) for p in re.split('[ML]', line.get('d'))[1:]]
  assert places[0] == pytest.approx((left, top), abs=0.05)
  expected = left + width / 2, top + 0.75 * height
  assert places[1] == pytest.approx(expected, abs=0.05)


def test_svg_of_markers_names_their_colour_once():
  figure, (axis,) = panels.open_figure()
  charts.clouds(axis, {'cloud': [(i, i) for i in range(100)]})
  text = panels.svg(figure, 'cloud')
  assert text.count('<use') > 100
  assert text.count(panels.class_colours(1)[0]) == 1
