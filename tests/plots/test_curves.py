"""Figures of the logged scalars."""

import pytest

from sslhsic.plots import curves, panels

ROWS = [
  {'step': 1, 'loss': 2.0, 'term': 3.0, 'term_approximation': 2.5},
  {'step': 2, 'loss': 1.5, 'term': 2.0, 'term_approximation': 1.9},
  {'step': 2, 'knn_top1': 0.5},
]


@pytest.fixture
def drawn(monkeypatch):
  """The points of every line that is drawn, by the titles of the panels."""
  found, save = {}, panels.save

  def keep(figure, path):
    for axis in figure.axes:
      found[axis.get_title()] = [x.get_xydata().tolist() for x in axis.lines]
    save(figure, path)

  monkeypatch.setattr(panels, 'save', keep)
  return found


def test_every_scalar_is_drawn(tmp_path, drawn):
  curves.plot(ROWS, tmp_path / 'curves.png')
  assert drawn == {
    'loss': [[[1, 2.0], [2, 1.5]]],
    'knn_top1': [[[2, 0.5]]],
    'term': [[[1, 3.0], [2, 2.0]]],
    'term_approximation': [[[1, 2.5], [2, 1.9]]],
  }
  assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_no_scalar_is_no_figure(tmp_path):
  curves.plot([{'step': 1}], tmp_path / 'curves.png')
  assert not list(tmp_path.iterdir())


def test_scalars_of_several_learning_rates_share_a_panel(tmp_path, monkeypatch):
  shown = {}

  def keep(figure, path):
    del path
    for axis in figure.axes:
      shown[axis.get_title()] = [line.get_label() for line in axis.lines]

  monkeypatch.setattr(panels, 'save', keep)
  rows = [{'step': 1, 'loss': 1.0, 'top1_10': 0.5, 'top1_1e-05': 0.1, 'top1_0.5': 0.2}]
  curves.plot(rows, tmp_path / 'curves.png')
  assert shown == {'loss': ['loss'], 'top1': ['1e-05', '0.5', '10']}


def test_a_scalar_with_an_approximation_gets_a_figure_of_both(tmp_path):
  curves.plot_approximations(ROWS, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['term.png']
  assert (tmp_path / 'term.png').read_bytes()[:4] == b'\x89PNG'


def test_scalars_without_approximations_get_none(tmp_path):
  curves.plot_approximations([{'step': 1, 'loss': 2.0}], tmp_path)
  assert not list(tmp_path.iterdir())


def test_accuracy_by_labels_is_drawn(tmp_path, drawn):
  curves.few_label_curve({1: 0.2, 10: 0.7}, tmp_path / 'few_label.png')
  assert list(drawn.values()) == [[[[1, 0.2], [10, 0.7]]]]
  assert (tmp_path / 'few_label.png').read_bytes()[:4] == b'\x89PNG'


def test_loss_and_accuracies_come_first():
  names = ['alpha', 'knn_top1', 'loss', 'learning_rate', 'online_top1']
  assert sorted(names, key=curves._rank) == [
    *('loss', 'knn_top1', 'online_top1'),
    *('alpha', 'learning_rate'),
  ]
