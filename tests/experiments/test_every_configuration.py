"""Every configuration: its program builds, and its full-size step traces.

Nothing is computed. Arrays on the devices are shapes, and what is mapped over them is
only traced; batches repeat one example, and data sets that are not here are blank.
"""

import dataclasses
import importlib
import json
import math
import pathlib
import types
from typing import ClassVar

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import dense, pretrain, transfer
from sslhsic import parallel
from sslhsic.data import loader, reading, sources
from sslhsic.data.annotations import Annotations
from sslhsic.evaluation import encoder, probe, representations
from sslhsic.evaluation import knn as votes
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


# What stands in for data and arrays


@dataclasses.dataclass(frozen=True)
class _Blank:
  """A source of equal, blank examples, with two objects each."""

  image_size: tuple[int, int]
  num_classes: int
  label: np.ndarray
  channels: int = 3

  annotations: ClassVar = Annotations(
    kinds=frozenset({'segmentation', 'depth', 'boxes', 'masks'}),
    segmentation_classes=('class',) * 21,
    object_classes=('class',) * 80,
  )

  def __len__(self):
    return 1_000_000

  @property
  def sizes(self):
    """Heights and widths, [n, 2]."""
    return np.broadcast_to(np.array(self.image_size), (len(self), 2))

  def __getitem__(self, index):
    size = height, width = self.image_size
    boxes = np.array([[0.1, 0.1, 0.5, 0.6], [0.2, 0.2, 0.9, 0.9]], np.float32)
    return {
      'image': np.zeros((*size, self.channels), np.uint8),
      'label': self.label,
      'segmentation': np.zeros(size, np.uint8),
      'depth': np.ones(size, np.float32),
      'boxes': boxes * np.float32([width, height, width, height]),
      'classes': np.array([0, 1], np.int32),
      'ignore': np.array([False, True]),
      'area': np.array([99, 99], np.float32),
      'masks': np.zeros((2, *size), np.uint8),
    }

  @property
  def labels(self):
    """Of few of the examples, all classes among them."""
    if self.label.ndim:
      return np.eye(self.num_classes, dtype=np.int32)
    return np.tile(np.arange(self.num_classes, dtype=np.int32), 20)

  def name(self, index):
    return 'blank'


SIZES = {'tfds:nyu_depth_v2': (480, 640), 'coco:coco': (480, 640)}
create, pmap = sources.create, parallel.pmap


def _create(name, split):
  """The source itself, if it needs no files, or a blank one in its place."""
  if name.partition(':')[0] in ('digits', 'shapes'):
    return create(name, split)
  if name.startswith('idx:'):
    return _Blank((28, 28), 10, np.int32(0), channels=1)
  size = SIZES.get(name, (375, 500))
  if split == 'unlabelled':
    return _Blank(size, 0, np.int32(-1))
  if name == 'tfds:voc/2007':  # An image is of several classes; here, upright too.
    return _Blank(size[::-1], 20, np.zeros(20, np.int32))
  return _Blank(size, 1000, np.int32(0))


def _next_batch(stream):
  return _repeated(stream._chunks.load(0), stream._chunks.batch_size)


class _DeviceIterator(loader.DeviceIterator):
  """Makes a batch when it is asked for: a thread would go on after the test."""

  def __next__(self):
    return parallel.shard(next(self._batches))


def _every_example(source, *, make, batch_size, **_):
  yield _repeated(reading.Example(source, make)(0), batch_size)


def _repeated(loaded, batch_size):
  """A batch of one example, which takes no memory."""
  example, _ = loaded
  repeat = lambda x: np.broadcast_to(x, (batch_size, *np.shape(x)))
  return jax.tree.map(repeat, example)


def _initial_values(network, image_shape, seed):
  init = lambda rng, images: network.init(rng, images, True)
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  shapes = jax.eval_shape(init, jax.random.key(seed), images)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _replicate(tree):
  count = len(parallel.devices())
  stack = lambda x: jnp.broadcast_to(x[None], (count, *x.shape))
  return jax.eval_shape(lambda tree: jax.tree.map(stack, tree), tree)


def _shard(batch):
  count = len(parallel.devices())
  split = lambda x: (count, parallel.per_device(len(x)), *x.shape[1:])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(split(x), x.dtype), batch)


def _pmap(function, **settings):
  mapped = pmap(function, **settings)
  return lambda *arguments: jax.eval_shape(mapped, *arguments)


@pytest.fixture
def shapes_only(monkeypatch):
  """Shapes in the place of arrays on the devices."""
  for module, name, value in (
    (sources, 'create', _create),
    (loader.Stream, '__next__', _next_batch),
    (loader, 'DeviceIterator', _DeviceIterator),
    (loader, 'every_example', _every_example),
    (encoder, 'initial_values', _initial_values),
    (parallel, 'replicate', _replicate),
    (parallel, 'shard', _shard),
    (parallel, 'pmap', _pmap),
  ):
    monkeypatch.setattr(module, name, value)


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
  config = _config(path)
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
  batch = _shard(next(frozen.one_pass(source)))
  shape = frozen._embed(frozen.params, frozen.network_state, batch['image']).shape
  assert shape == (*batch['mask'].shape, frozen.embedding_size)
  frozen.num_images, frozen.seconds = 1, 1.0
  labels = source.labels
  return representations.Split(np.ones((len(labels), 3), np.float32), labels)


# The real one keeps what it has mapped, which only traces here, for later tests.
def _vote(train, labels, test, *, num_classes, k, temperature):
  assert 1 <= k <= len(train) == len(labels)
  assert temperature > 0
  return np.zeros((len(test), num_classes), np.float32)


def _fit(features, labels, *, num_classes, l2):
  assert l2 > 0
  return probe.LinearProbe(
    jnp.zeros((features.shape[1], num_classes)), jnp.zeros(num_classes)
  )


def _select(train, labels, validation, validation_labels, *, num_classes, l2s):
  assert len(validation) == len(validation_labels) > 0
  fitted = _fit(train, labels, num_classes=num_classes, l2=min(l2s))
  return probe.Selection(fitted, l2s[0], np.zeros(len(l2s)))


@pytest.mark.usefixtures('shapes_only')
@_of_files(False)
def test_embedding_traces_and_settings_fit(path, monkeypatch, tmp_path):
  config = _config(path)
  if 'tasks' in config:
    config.only = tuple(_tasks(config))
  _use_devices(monkeypatch, config)
  for module, name, value in (
    (encoder.FrozenEncoder, 'embed', _embed),
    (votes, 'scores', _vote),
    (probe, 'fit', _fit),
    (probe, 'select', _select),
  ):
    monkeypatch.setattr(module, name, value)
  results = MEASURED[path.parent.name](config, tmp_path)
  assert results['encoder'] == 'random initial values'
