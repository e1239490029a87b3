"""The configurations: complete, and of names that there are."""

import dataclasses
import importlib
import pathlib

import jax
import numpy as np
import pytest

from experiments import finetune, linear_eval
from sslhsic import augment, evaluators, networks, optim
from sslhsic.data import sources, splits
from sslhsic.evaluation import metrics
from sslhsic.networks import classifier

# Each evaluation's configuration that says everything; the others say what differs.
COMPLETE = {
  'linear_eval': 'imagenet',
  'finetune': 'imagenet_1pct',
  'knn': 'imagenet',
  'few_label': 'imagenet',
  'transfer': None,  # Two protocols, of different settings.
  'segmentation': 'voc',
  'depth': 'nyu',
  'detection': 'coco_torchvision',
}

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / 'configs' / 'pretrain').glob('*.py'))

# Epochs: base learning rate, weight decay, target decay (BYOL paper).
BYOL_PRESETS = {
  100: (0.45, 1e-6, 0.99),
  300: (0.3, 1e-6, 0.99),
  1000: (0.2, 1.5e-6, 0.996),
}


@pytest.mark.parametrize(
  'path',
  sorted((ROOT / 'configs').glob('[!t]*/*.py'))
  + sorted((ROOT / 'configs').glob('transfer/*.py')),
  ids=lambda path: f'{path.parent.name}-{path.stem}',
)
def test_every_configuration_builds(path):
  config, again = (_get(path.parent.name, path.stem) for _ in range(2))
  assert config.seed == 0
  assert config.to_json() == again.to_json()
  config.seed = 1
  assert again.seed == 0  # Each call makes its own.
  if path.parent.name == 'pretrain':
    complete = _config('imagenet')
    for section in complete:
      if hasattr(complete[section], 'keys') and section not in ('data', 'augment'):
        assert config[section].keys() == complete[section].keys()
    for name in complete.evaluators:
      if name != 'names':
        _check_evaluator(name, config.evaluators[name], complete.evaluators[name])


def _check_evaluator(name, settings, complete):
  """Every setting can be given on the command line."""
  fields = dataclasses.fields(evaluators.create(name, **settings))
  assert set(settings) == set(complete) == {field.name for field in fields}


def _config(name):
  return importlib.import_module(f'configs.pretrain.{name}').get_config()


@pytest.mark.parametrize('name', NAMES)
def test_data_are_described_completely(name):
  data = _config(name).data
  assert data.keys() == _config('imagenet').data.keys()
  assert data.source.partition(':')[0] in sources.SOURCES
  is_gray = data.source.startswith(('digits', 'idx:'))
  assert len(data.mean) == len(data.std) == (1 if is_gray else 3)
  assert all(0 < value < 1 for value in data.mean + data.std)


@pytest.mark.parametrize(
  'name',
  [
    'cifar10',
    'cifar100',
    'stl10',
    'tiny_imagenet',
    'imagenet100',
    'cifar10_100epochs',
    'imagenet_100epochs',
  ],
)
def test_schedule_is_the_preset_of_its_length(name):
  config = _config(name)
  optimizer = config.optimizer
  preset = (
    optimizer.base_learning_rate,
    optimizer.weight_decay,
    config.target_base_decay,
  )
  assert preset == BYOL_PRESETS[config.training.epochs]


@pytest.mark.parametrize('name', [name for name in NAMES if name.endswith('epochs')])
def test_shorter_training_differs_in_its_schedule_alone(name):
  base, _, length = name.rpartition('_')
  short, long = _config(name), _config(base)
  assert length == f'{short.training.epochs}epochs'
  assert short.training.epochs < long.training.epochs
  long.training.epochs = short.training.epochs
  long.training.warmup_epochs = short.training.warmup_epochs
  long.optimizer = short.optimizer
  long.target_base_decay = short.target_base_decay
  assert short.to_json() == long.to_json()


def _evaluations():
  return [
    (folder, path.stem)
    for folder in COMPLETE
    for path in sorted((ROOT / 'configs' / folder).glob('*.py'))
  ]


def _get(folder, name):
  return importlib.import_module(f'configs.{folder}.{name}').get_config()


def _fields(config):
  return {key for key, value in config.items()} | {
    f'{section}.{key}'
    for section, values in config.items()
    if hasattr(values, 'items') and section not in ('tasks', 'published')
    for key in values
  }


@pytest.mark.parametrize(
  ('folder', 'name'), [('pretrain', name) for name in NAMES] + _evaluations()
)
def test_evaluations_smooth_unless_they_are_the_published_ones(folder, name):
  data = _get(folder, name).data
  published = name == 'imagenet_published'
  if 'evaluation_interpolation' in data:
    assert (data.evaluation_interpolation == 'bicubic') == published
    assert data.get('interpolation', 'bicubic') == 'bicubic'


@pytest.mark.parametrize(('folder', 'name'), _evaluations())
def test_evaluation_names_only_what_there_is(folder, name):
  config = _get(folder, name)
  complete = COMPLETE[folder] or ('finetune' if 'finetune' in name else 'linear')
  assert _fields(config) == _fields(_get(folder, complete))
  assert config.init_from == ''
  assert config.network.encoder in networks.ENCODERS
  if 'augment' in config:
    augment.create(config.augment.policy)
  parts = ('train', 'validation', 'test')
  for task in config.get('tasks', {}).values():
    assert task.source.partition(':')[0] in sources.SOURCES
    assert task.metric in metrics.METRICS
    for part in parts:
      splits.parse(task[part])
  for part in parts:
    if config.data.get(part, {'source': ''})['source']:
      assert config.data[part].source.partition(':')[0] in sources.SOURCES
      splits.parse(config.data[part].split)


def test_published_rows_name_the_tasks():
  for name in ('linear', 'finetune'):
    config = _get('transfer', name)
    assert len(config.tasks) == 12
    for row in config.published.values():
      assert row.keys() == config.tasks.keys()


# Learning rates at steps, of the sources that the files name.
SCHEDULES = {
  ('detection', 'coco_detectron2'): {1000: 0.02, 60_000: 2e-3, 80_000: 2e-4},
  ('detection', 'voc_moco'): {100: 0.02, 6750: 2e-3, 8250: 2e-4},
  ('detection', 'voc_byol'): {0: 1e-3, 1_000_000: 1e-4, 1_200_000: 1e-5},
  ('segmentation', 'voc'): {0: 1e-3, 21_000: 1e-4, 27_000: 1e-5},
}


@pytest.mark.parametrize(('folder', 'name'), SCHEDULES)
def test_dense_schedules_are_those_of_their_sources(folder, name):
  training = _get(folder, name).training
  schedule = optim.warmup_drops(
    training.learning_rates[0], training.warmup_steps, training.steps, training.drops
  )
  expected = SCHEDULES[folder, name]
  before = 0.0
  for step, rate in expected.items():
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-5)
    if step > training.warmup_steps:
      np.testing.assert_allclose(schedule(step - 1), before, rtol=1e-5)
    before = rate
  lengths = {'coco_detectron2': 90_000, 'voc_moco': 9000, 'voc_byol': 1_500_000}
  assert training.steps == lengths.get(name, 30_000)


def test_learning_rates_of_segmentation_are_log_spaced():
  rates = _get('segmentation', 'voc').training.learning_rates
  np.testing.assert_allclose(rates, np.logspace(-3, -1, 5))


@pytest.mark.parametrize(
  ('folder', 'name'),
  [
    ('linear_eval', 'imagenette'),
    ('few_label', 'imagenette'),
    ('finetune', 'imagenette_1pct'),
    ('finetune', 'imagenette_10pct'),
  ],
)
def test_encoder_of_imagenette_is_that_of_its_pretraining(folder, name):
  here, there = _get(folder, name).network, _config('imagenette').network
  assert here.encoder == there.encoder
  assert here.encoder_options == there.encoder_options


@pytest.mark.parametrize('folder', ['segmentation', 'depth', 'detection'])
def test_encoder_of_the_shapes_fits_their_dense_evaluations(folder):
  here, there = _get(folder, 'shapes'), _config('shapes')
  assert (here.data.mean, here.data.std) == (there.data.mean, there.data.std)

  def parameters(config):
    network = classifier.encoder(
      encoder=config.network.encoder, encoder_options=config.network.encoder_options
    )
    init = lambda rng, images: network.init(rng, images, True)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(init, jax.random.key(0), images)

  assert parameters(here) == parameters(there)


def test_learning_rates_of_byol_are_base_rates():
  """1.6 to 0.2 at 1024 images: base rates of 0.4 to 0.05, times batch size / 256."""
  rates = linear_eval.learning_rates(_get('linear_eval', 'imagenet_byol'))
  np.testing.assert_allclose(rates, [1.6, 1.2, 0.8, 0.4, 0.2])
  for name, count in (('1pct', 12_811), ('10pct', 128_116), ('100pct', 1_271_158)):
    grid = finetune.grid(_get('finetune', f'imagenet_{name}'), count)
    rates = {setting.learning_rate for setting in grid}
    np.testing.assert_allclose(sorted(rates), [0.02, 0.04, 0.08, 0.2, 0.4])
