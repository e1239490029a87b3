"""Every configuration: its program builds, and its step of full-size batches traces.

Nothing is computed, see `benchmarks.full_size`. Networks have one block of each kind,
as more of them are traced alike.
"""

import importlib
import json
import math
import pathlib
import types

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import full_size
from experiments import dense, pretrain, transfer
from sslhsic import parallel
from sslhsic.evaluation import (
  encoder,
  features,
  knn,
  metrics,
  probe,
  representations,
)
from sslhsic.networks import resnet
from tests.experiments.programs import MEASURED, TRAINED

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
PATHS = sorted(path for path in CONFIGS.rglob('*.py') if path.parent.name != 'tables')
# Fields that a step depends on in its numbers alone, or through the state's shapes.
IMMATERIAL = {
  'runner',
  'evaluation',
  'metric',
  'epochs',
  'warmup_epochs',
  'base_learning_rate',
  'weight_decay',
  'target_base_decay',
  'source',
  'train_split',
  'learning_rates',
  'train',
  'validation',
  'test',
  'mean',
  'std',
  'num_workers',
}


@pytest.fixture
def shapes_only():
  """Shapes in the place of arrays on the devices."""
  with full_size.shapes_only():
    yield


@pytest.fixture(scope='module')
def traced():
  """State and scalars after a step, by all that decides about their shapes."""
  return {}


# Configurations


def _config(path):
  config = importlib.import_module(f'configs.{path.parent.name}.{path.stem}')
  config = config.get_config()
  if 'init_from' in config:
    config.init_from = 'random'
  return config


def _shallow(path):
  config = _config(path)
  network = config.network
  options = dict(network.encoder_options)
  if network.encoder in resnet.PRESETS:
    blocks = {**resnet.PRESETS[network.encoder], **options}['blocks_per_group']
    options['blocks_per_group'] = (1,) * len(blocks)
  else:
    options['depth'] = 4  # Features of four layers are what dense tasks see.
  network.encoder_options = options
  return config


def _is_trained(path):
  return path.parent.name in TRAINED or _config(path).get('protocol') == 'finetune'


def _of_files(is_trained):
  return pytest.mark.parametrize(
    'path',
    [path for path in PATHS if _is_trained(path) == is_trained],
    ids=lambda path: f'{path.parent.name}-{path.stem}',
  )


def _runs(path):
  """Programs and their configurations: of transfer, a task for every metric."""
  config = _shallow(path)
  if 'tasks' not in config:
    return [(path.parent.name, config)]
  return [('finetune', transfer.task_config(config, x)) for x in _tasks(config)]


def _tasks(config):
  return list({config.tasks[x].metric: x for x in transfer.chosen(config)}.values())


def _use_devices(monkeypatch, config):
  """As many as divide the batches."""
  sizes = [config[x].batch_size for x in ('training', 'evaluation') if x in config]
  devices = jax.devices()[: math.gcd(8, *sizes)]
  monkeypatch.setattr(parallel, 'devices', lambda: devices)


def _essence(config):
  """What of a configuration decides about shapes."""
  return {
    name: _essence(value) if isinstance(value, dict) else value
    for name, value in config.items()
    if name not in IMMATERIAL
  }


def _step(traced, folder, config):
  """The state before a step, and after it, which is traced once, and its scalars."""
  experiment = TRAINED[folder]('train', jax.random.key(0), config)
  before = experiment.state
  key = folder, json.dumps(_essence(config.to_dict())), str(before)
  if key not in traced:
    scalars = experiment.step(0, jax.random.key_data(jax.random.key(0)))
    traced[key] = experiment.state, scalars
  return before, *traced[key]


# Tests


@pytest.mark.usefixtures('shapes_only')
@_of_files(True)
def test_step_traces(path, monkeypatch, traced):
  for folder, config in _runs(path):
    _use_devices(monkeypatch, config)
    before, after, scalars = _step(traced, folder, config)
    assert after == before
    assert 'loss' in scalars
    assert {np.shape(x) for x in scalars.values()} == {()}


@pytest.mark.usefixtures('shapes_only')
def test_published_step_has_the_published_sizes(monkeypatch, traced):
  """ResNet-50 on 4096 images of 224 pixels, on eight devices."""
  config = _config(CONFIGS / 'pretrain' / 'imagenet.py')
  _use_devices(monkeypatch, config)
  _, state, scalars = _step(traced, 'pretrain', config)
  assert {'loss', 'hsic_zy', 'hsic_zz', 'kernel_scale'} <= scalars.keys()
  # ResNet-50 and, on 2048 embedding features, the projector, then the predictor.
  expected = 23_508_032 + (2048 + 3) * 4096 + 4096 * 256
  assert hk.data_structures.tree_size(state.target_params) == 8 * expected


SHAPES = {
  'pretrain-imagenet': (4096, 224, 224, 3),
  'segmentation-voc': (16, 513, 513, 3),
  'depth-nyu': (256, 228, 304, 3),
  'detection-coco_torchvision': (16, 800, 1344, 3),
  'detection-coco_detectron2': (16, 800, 1344, 3),
  'detection-voc_moco': (16, 1344, 800, 3),  # Upright.
  'detection-voc_byol': (1, 1024, 1024, 3),
}


@pytest.mark.usefixtures('shapes_only')
@pytest.mark.parametrize('name', SHAPES)
def test_batch_is_of_full_size(name, monkeypatch):
  """The cheap part of a step: what it is given."""
  folder, _, stem = name.partition('-')
  config = _config(CONFIGS / folder / f'{stem}.py')
  _use_devices(monkeypatch, config)
  state = types.SimpleNamespace(network=None)
  for experiment in (pretrain.Pretrain, dense.DenseExperiment):
    monkeypatch.setattr(experiment, '_initial_state', lambda *_: state)
  monkeypatch.setattr(encoder, 'initial_values', lambda *_: ({}, {}))
  made = TRAINED[folder]('train', jax.random.key(0), config)
  opened = made.input if folder == 'pretrain' else made._open_input('train')
  batch = next(opened)
  image = batch['view1' if folder == 'pretrain' else 'image']
  count, size, *image_shape = image.shape
  assert (count * size, *image_shape) == SHAPES[name]
  assert image.dtype == np.uint8


# The estimators, which see made-up embeddings


def _embed(frozen, source):
  """Traces the pass of a batch, and makes up embeddings of the labelled examples."""
  batch = full_size.shard(next(frozen.one_pass(source)))
  shape = frozen._embed(frozen.params, frozen.network_state, batch['image']).shape
  assert shape == (*batch['mask'].shape, frozen.embedding_size)
  frozen.num_images, frozen.seconds = 1, 1.0
  labels = source.labels
  return representations.Split(np.ones((len(labels), 3), np.float32), labels)


def _embed_share(frozen, source):
  return features.of_whole(*_embed(frozen, source))


# The real ones keep what they have mapped, which only traces here, for later tests.
def _neighbours(train, labels, test, *, k, train_rows):
  assert 1 <= k <= len(train) == len(labels) == len(train_rows)
  return knn.Neighbours(np.ones((len(test), k)), np.zeros((len(test), k), np.int32))


def _votes(found, *, num_classes, k, temperature):
  assert k <= found.labels.shape[1]
  assert temperature > 0
  return np.zeros((len(found.labels), num_classes), np.float32)


def _fit(features, labels, *, num_classes, l2):
  assert l2 > 0
  return probe.LinearProbe(
    jnp.zeros((features.shape[1], num_classes)), jnp.zeros(num_classes)
  )


def _select(train, labels, validation, validation_labels, *, num_classes, l2s):
  assert len(validation) == len(validation_labels) > 0
  fitted = _fit(train, labels, num_classes=num_classes, l2=min(l2s))
  return probe.Selection(fitted, l2s[0], np.zeros(len(l2s)))


def _in_top_k(scores, labels, k=1):
  assert 1 <= k <= scores.shape[1]
  return jnp.zeros(labels.shape, bool)


@pytest.mark.usefixtures('shapes_only')
@_of_files(False)
def test_embedding_traces_and_settings_fit(path, monkeypatch, tmp_path):
  config = _shallow(path)
  if 'tasks' in config:
    config.only = tuple(_tasks(config))
  _use_devices(monkeypatch, config)
  for module, name, value in (
    (encoder.FrozenEncoder, 'embed', _embed),
    (encoder.FrozenEncoder, 'embed_share', _embed_share),
    (knn, 'neighbours', _neighbours),
    (knn, 'votes', _votes),
    (probe, 'fit', _fit),
    (probe, 'select', _select),
    (metrics, 'in_top_k', _in_top_k),
  ):
    monkeypatch.setattr(module, name, value)
  results = MEASURED[path.parent.name](config, tmp_path)
  assert results['encoder'] == 'random initial values'
