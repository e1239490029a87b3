"""kNN and few labels as programs: of a checkpoint, and of random values."""

import json
import shutil

import jax
import numpy as np
import pytest
from sklearn import neighbors

from configs.few_label import digits as few_label_digits
from configs.knn import digits as knn_digits
from experiments import few_label, knn, shared
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.runs import measurement


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])


def _config(module, init_from):
  config = module.get_config()
  config.init_from = str(init_from)
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.data.train.split = 'train[:300]'
  config.data.test.split = 'test[:51]'
  config.evaluation.batch_size = 64
  return config


def _results(path):
  return json.loads((path / 'results.json').read_text())


def test_knn_is_that_of_scikit_learn(pretrained_run, tmp_path, capsys):
  config = _config(knn_digits, pretrained_run[0])
  config.protocol = {'k': (5, 20), 'temperature': (0.1,)}
  measurement.run(knn.measure, config, tmp_path)
  results = _results(tmp_path)
  train, test = (
    sources.create('digits', config.data[part].split) for part in ('train', 'test')
  )
  encoder = shared.frozen_encoder(config, train)
  train, test = encoder.embed(train), encoder.embed(test)
  for row in results['knn']:
    reference = neighbors.KNeighborsClassifier(
      row['k'], metric='cosine', weights=lambda distances: np.exp((1 - distances) / 0.1)
    )
    expected = reference.fit(*train).score(*test)
    assert row['top1'] == pytest.approx(expected, abs=1.01 / 51)
  out = capsys.readouterr().out
  assert out.split('\n')[2].split() == ['k', 'T', 'top-1', 'top-5']
  assert 'k = 5, T = 0.1' in results['protocol']['knn_top1']
  assert results['knn_top1'] == results['knn'][0]['top1']


def test_impossible_protocols_are_refused_before_anything_is_read(tmp_path):
  config = _config(knn_digits, 'random')
  config.protocol = {'k': (5, 301), 'temperature': (0.1,)}
  message = r'config\.protocol\.k is \(5, 301\), but digits train\[:300\] has 300 im'
  with pytest.raises(ValueError, match=message):
    measurement.run(knn.measure, config, tmp_path / 'knn')
  config = _config(few_label_digits, 'random')
  config.protocol.labels_per_class = (1, 40)
  message = r'labels_per_class is \(1, 40\), but class \d of .* has \d+ images; ask'
  with pytest.raises(ValueError, match=message):
    measurement.run(few_label.measure, config, tmp_path / 'few_label')
  config.data.test.source = 'shapes'
  with pytest.raises(
    ValueError, match=r'shapes test.* has 6 classes, but digits .* has 10'
  ):
    measurement.run(few_label.measure, config, tmp_path / 'classes')


@pytest.mark.usefixtures('partly_labelled')
@pytest.mark.parametrize(
  ('module', 'program', 'protocol', 'result'),
  [
    (knn_digits, knn, {'k': (5,), 'temperature': (0.1,)}, 'knn_top1'),
    (few_label_digits, few_label, {'labels_per_class': (5,)}, 'few_label_top1'),
  ],
)
def test_images_without_a_label_do_not_count(
  module, program, protocol, result, pretrained_run, tmp_path
):
  found = []
  for source in ('quick', 'slow'):
    config = _config(module, pretrained_run[0])
    config.protocol.update(protocol)
    config.data.train.source = config.data.test.source = source
    measurement.run(program.measure, config, tmp_path / source)
    found.append(_results(tmp_path / source)[result])
  assert found[0] == found[1]


def test_encoder_may_move_but_not_change(pretrained_run, tmp_path):
  moved = shutil.copytree(pretrained_run[0], tmp_path / 'moved')
  config = _config(knn_digits, pretrained_run[0])
  config.protocol = {'k': (5,), 'temperature': (0.1,)}
  run = lambda: measurement.run(
    knn.measure, config, tmp_path / 'knn', free=('init_from',)
  )
  run()
  config.init_from = str(moved)
  run()
  config.init_from = f'{moved}/checkpoints/1'
  with pytest.raises(ValueError, match='is another one than when this run was begun'):
    run()
  assert _results(tmp_path / 'knn')['encoder'].startswith(str(moved))


def test_figure_that_fails_is_named_and_the_numbers_written(tmp_path, monkeypatch):
  def full(*_):
    raise OSError('No space left on device')

  monkeypatch.setattr(few_label.curves, 'few_label_curve', full)
  config = _config(few_label_digits, 'random')
  config.protocol.labels_per_class = (1,)
  with pytest.raises(ValueError, match=r'few_label\.png: No space left on device'):
    measurement.run(few_label.measure, config, tmp_path)
  assert 0 < _results(tmp_path)['few_label_top1']['1'] < 1


def test_more_labels_are_worth_more(tmp_path):
  config = _config(few_label_digits, 'random')
  config.protocol.labels_per_class = (1, 10)
  measurement.run(few_label.measure, config, tmp_path)
  results = _results(tmp_path)
  assert 0.1 < results['few_label_top1']['1'] < results['few_label_top1']['10'] < 1
  assert results['encoder'] == 'random initial values'
  assert (tmp_path / 'figures' / 'few_label.png').read_bytes()[:4] == b'\x89PNG'
