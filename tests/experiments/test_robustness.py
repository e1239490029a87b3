"""Further test sets of linear evaluation and kNN, in the layouts of ImageNet's."""

import json

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import special

from configs.knn import digits as knn_digits
from configs.linear_eval import digits as linear_digits
from experiments import knn, linear_eval, shared
from sslhsic import optim, parallel
from sslhsic.data import compared
from sslhsic.runs import measurement, runner
from tests import tfds_data_sets

WNIDS = ('n01440764', 'n01443537', 'n01484850', 'n01491361')
SUBSET = (1, 3)  # As 200 of 1000 in ImageNet-A and -R.


@pytest.fixture(scope='module')
def extra_tests(tmp_path_factory, write_images, encoded_image):
  """Directory, and the further test sets by name, with images of their own."""
  root = tmp_path_factory.mktemp('robustness')
  for number, wnid in enumerate(WNIDS):
    write_images(root / 'train' / wnid, 6, first=10 * number)
    write_images(root / 'test' / wnid, 3, first=50 + 10 * number)
    write_images(root / 'v2' / str(number), 3, first=100 + 10 * number)
    write_images(root / 'sketch' / 'sketch' / wnid, 3, first=150 + 10 * number)
  for number in SUBSET:
    write_images(root / 'a' / WNIDS[number], 3, first=200 + 10 * number)
  # TFDS knows all classes, and has images of some.
  label = tfds.features.ClassLabel(names=WNIDS)
  tfds_data_sets.prepare(
    root,
    'renditions',
    {'label': label},
    lambda number: {'label': SUBSET[number % 2]},
    {'test': 6},
    encode=lambda number: encoded_image(240 + number),
  )
  parts = {
    'imagenet_v2': (f'folder:{root}/v2', 'train'),
    'imagenet_a': (f'folder:{root}/a', 'train'),
    'imagenet_r': ('tfds:renditions', 'test'),
    'imagenet_sketch': (f'folder:{root}/sketch', 'train'),
  }
  return root, {
    name: {'source': source, 'split': split} for name, (source, split) in parts.items()
  }


@pytest.fixture(autouse=True)
def _few_devices(monkeypatch, extra_tests):
  monkeypatch.setenv('TFDS_DATA_DIR', str(extra_tests[0]))
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])


def _config(module, extra_tests):
  root, parts = extra_tests
  config = module.get_config()
  config.init_from = 'random'
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.data.update(crop_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
  config.data.train = {'source': f'folder:{root}/train', 'split': 'train'}
  config.data.test = {'source': f'folder:{root}/test', 'split': 'train'}
  config.evaluation.batch_size = 8
  config.evaluation.extra_tests = parts
  return config


def test_classes_are_those_of_the_training_set(extra_tests, capsys):
  config = _config(knn_digits, extra_tests)
  _, *made = compared.create(config.data.train, *config.evaluation.extra_tests.values())
  for name, source in zip(config.evaluation.extra_tests, made, strict=True):
    expected = SUBSET if name in ('imagenet_a', 'imagenet_r') else range(4)
    np.testing.assert_array_equal(np.unique(source.labels), expected)
    assert shared.classes_there(source).sum() == len(expected)
    for index in range(len(source)):
      # The name of the file, or of TFDS's record, says which class it is of.
      number = source.name(index)
      wnid = WNIDS[source.labels[index]]
      assert wnid in number or name in ('imagenet_v2', 'imagenet_r')
      if name == 'imagenet_v2':
        assert f'/{source.labels[index]}/' in number
  assert 'the names are numbers of' in capsys.readouterr().out


@pytest.mark.parametrize('module', [knn_digits, linear_digits])
def test_test_set_without_a_split_is_named(extra_tests, module):
  config = _config(module, extra_tests)
  config.evaluation.extra_tests = {'mine': {'source': f'folder:{extra_tests[0]}/test'}}
  with pytest.raises(ValueError, match=r'extra_tests\.mine has no split; give'):
    shared.extra_tests(config)


def test_linear_evaluation_chooses_from_the_classes_of_a_test_set(
  extra_tests, tmp_path
):
  config = _config(linear_digits, extra_tests)
  config.augment.policy = 'flip'
  config.data.validation = {'source': '', 'split': ''}
  config.optimizer.learning_rates = (0.5,)
  config.training.update(batch_size=8, epochs=2, warmup_steps=0)
  made = runner.Runner(linear_eval.LinearEval, config, tmp_path, 'train_and_eval')
  made.run()
  results = json.loads((tmp_path / 'results.json').read_text())
  experiment = made._experiment
  weights, bias = jax.device_get(
    optim.averaged(parallel.first(experiment.state.average), config.weight_ema_decay)
  )
  for name, source in experiment._extra_tests.items():
    features, labels = experiment._encoder.embed(source)
    logits = features @ weights[0] + bias[0]
    logits[:, np.setdiff1d(np.arange(4), labels)] = -np.inf
    expected = np.mean(logits.argmax(axis=1) == labels)
    assert results[f'linear_{name}_top1'] == pytest.approx(expected, abs=1e-6)
  assert results['linear_imagenet_a_top5'] == 1
  protocol = results['protocol']['linear_imagenet_a_top1']
  assert protocol.endswith('/a train, among its 2 classes')


def test_neighbours_vote_for_the_classes_of_a_test_set(extra_tests, tmp_path):
  config = _config(knn_digits, extra_tests)
  config.protocol = {'k': (5, 3), 'temperature': (0.1,)}
  measurement.run(knn.measure, config, tmp_path)
  results = json.loads((tmp_path / 'results.json').read_text())
  parts = config.evaluation.extra_tests
  train, *made = compared.create(config.data.train, *parts.values())
  encoder = shared.frozen_encoder(config, train)
  bank, bank_labels = encoder.embed(train)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  for name, source in zip(parts, made, strict=True):
    features, labels = encoder.embed(source)
    similarities = unit(features) @ unit(bank).T
    nearest = np.argsort(-similarities, axis=1)[:, :5]
    weights = special.softmax(np.take_along_axis(similarities, nearest, 1) / 0.1, 1)
    votes = np.stack(
      [np.where(bank_labels[nearest] == c, weights, 0).sum(1) for c in range(4)], 1
    )
    votes[:, np.setdiff1d(np.arange(4), labels)] = 0
    own = votes[np.arange(len(labels)), labels]
    expected = np.mean((votes.argmax(axis=1) == labels) & (own > 0))
    assert results[f'knn_{name}_top1'] == pytest.approx(expected, abs=1e-6)
    assert f'knn_{name}_top1' in results['protocol']
