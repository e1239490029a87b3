"""The parts of the report: what they show, worked out by hand."""

import re
from xml.etree import ElementTree

import ml_collections
import pytest

from sslhsic import atomic
from sslhsic.plots import charts, panels
from sslhsic.report import collect, page, sections
from sslhsic.runs import workdir


def _strokes(chart):
  return [
    re.search(r'stroke: ([^;]*)', path.get('style'))[1]
    for path in ElementTree.fromstring(chart).iter('path')
    if 'stroke: var(--c' in path.get('style', '')
  ]


def test_legend_has_the_colours_of_the_lines():
  names = [f'run {i}' for i in range(12)]
  series = {name: [(x, x + i) for x in range(40)] for i, name in enumerate(names)}
  legend = page.legend(names)
  colours = re.findall(r'2px \w+ (var\(--c\d\))', legend)
  assert _strokes(sections.line_chart(series, 'loss')) == colours
  assert re.findall(r'</span>(.*?)</li>', legend) == names
  dashes = re.findall(r'2px (\w+) var', legend)
  assert len(set(zip(colours, dashes, strict=True))) == 12


def test_legend_has_the_colours_of_the_clouds():
  for count in (3, 15):
    groups = {f'class {i}': [(i, i)] for i in range(count)}
    chart = page.chart('map', lambda axis, groups=groups: charts.clouds(axis, groups))
    colours = re.findall('color:(.*?)"', page.classes(list(groups)))
    assert len(colours) == count
    for colour in colours:
      assert f'fill: {colour}' in chart


def test_every_colour_of_a_figure_is_defined_by_the_page():
  text = page.page('title', [])
  schemes = re.findall(r':root{(.*?)}', text)
  assert len(schemes) == 3  # Light, dark, and print.
  for scheme in schemes:
    defined = dict(x.split(':') for x in scheme.split(';') if x)
    assert defined.keys() >= {f'--c{i}' for i in range(len(panels.COLOURS))}
    assert defined.keys() >= {'--ink', '--soft', '--rule'}


def test_long_lines_are_thinned_and_keep_their_end():
  values = [i * i % 101 for i in range(9_999)] + [1000]
  chart = sections.line_chart({'a': list(enumerate(values))}, 't')
  paths = [path.get('d') for path in ElementTree.fromstring(chart).iter('path')]
  places = [float(x.split()[1]) for x in max(paths, key=len)[1:].split('L')]
  assert 150 < len(places) <= 300
  assert places[-1] == min(places)  # Up is less in SVG.


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
  atomic.write(tmp_path / 'one' / 'metrics.jsonl', '{"step": 1}\n')
  two, one = collect.find([tmp_path])
  assert (two.name, one.name) == ('deep/two', 'one')
  assert (one.rows, two.rows, two.results) == ([{'step': 1}], [], {})
  assert collect.of_one_program([one, two]) == [[one, two]]
  assert collect.differences([one, two]) == (['loss.gamma'], [['1.0'], ['3.0']])
  names = ['knn_top1', 'few_label_top1.1', 'few_label_top1.5']
  assert collect.metrics([one, two]) == (names, [['0.1235', '0.5', '0.75'], [''] * 3])
  with pytest.raises(ValueError, match=r'no run in .*nothing: give working'):
    collect.find([tmp_path / 'one', tmp_path / 'nothing'])


def _run(path, results, **config):
  workdir.write_config(path, ml_collections.ConfigDict({'seed': 0, **config}))
  workdir.write_results(path, results)


def test_numbers_and_protocols_of_every_depth_are_shown(tmp_path):
  scores = {'pixels': {'knn_top1': 0.25}, 'trained': {'knn_top1': 0.75}}
  protocol = {'cifar10': {'linear_top1': 'a linear layer'}}
  tasks = {'cifar10': {'metric': 'top1', 'value': 0.9}}
  _run(tmp_path / 'one', {'steps': 312_500, 'representations': scores})
  _run(tmp_path / 'two', {'cifar10_top1': 0.9, 'tasks': tasks, 'protocol': protocol})
  text = sections.results(collect.find([tmp_path])).body
  for name, value in (
    ('representations.pixels.knn_top1', '0.25'),
    ('representations.trained.knn_top1', '0.75'),
    ('steps', '312,500'),
    ('cifar10_top1', '0.9'),
  ):
    row = re.search(rf'<tr><th scope="row">{name}</th>(.*?)</tr>', text)[1]
    assert f'<td>{value}</td>' in row
  assert 'tasks.' not in text
  assert 'cifar10: a linear layer.' in text


def test_results_that_failed_or_are_of_an_earlier_configuration_are_not_done(tmp_path):
  _run(tmp_path / 'failed', {'knn_top1': 0.5, 'failed': {'report': 'no disk'}})
  _run(tmp_path / 'stale', {'knn_top1': 0.5})
  _run(tmp_path / 'good', {'knn_top1': 0.25})
  config = ml_collections.ConfigDict({'seed': 1})
  workdir.write_config(tmp_path / 'stale', config)
  text = sections.results(collect.find([tmp_path])).body
  assert 'Not done: failed (report has failed: no disk); stale.' in text
  assert '0.25' in text
  assert '0.5' not in text


def test_what_is_no_run_and_no_table_is_left_out(tmp_path):
  _run(tmp_path / 'run', {'knn_top1': 0.5})
  for name in ('export/config.json', 'tables/other.json'):
    atomic.write(_made(tmp_path / name), '{"model_type": "resnet"}')
  assert [run.name for run in collect.find([tmp_path])] == ['run']
  assert collect.find_tables([tmp_path]) == []


def _made(path):
  path.parent.mkdir(parents=True)
  return path
