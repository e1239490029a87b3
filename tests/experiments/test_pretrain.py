"""Pre-training: equal on any number of devices, and the published configuration."""

import functools
import itertools
import logging

import jax
import numpy as np
import pytest

from configs.pretrain import digits, digits_simsiam, imagenet
from experiments import pretrain
from sslhsic import losses, parallel
from sslhsic.data import loader, sources
from sslhsic.pretraining import build
from sslhsic.pretraining import step as step_lib


def _tiny(channels=(4, 8), **changes):
  config = digits.get_config()
  config.training.batch_size = 16
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {
    'blocks_per_group': (1,) * len(channels),
    'channels_per_group': channels,
  }
  config.update_from_flattened_dict(changes)
  return config


def _gradients(training, state):
  source = sources.create('digits', 'train')
  batch = next(loader.views(source, batch_size=16, seed=0))
  gradients = functools.partial(step_lib.gradients, training)
  gradients = parallel.pmap(gradients, in_axes=(0, 0, None, None))
  keys = jax.random.key(1), jax.random.key(0)
  result = gradients(parallel.replicate(state), parallel.shard(batch), *keys)
  return jax.device_get(parallel.first(result))


@pytest.fixture
def one_device(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])


@pytest.mark.parametrize('target_network', [True, False])
def test_step_is_equal_on_any_number_of_devices(monkeypatch, target_network):
  """Loss, gradients, batch statistics and every scalar, to rounding."""
  config = _tiny(target_network=target_network)
  experiment = pretrain.Pretrain('eval', jax.random.key(0), config)
  state, results = parallel.first(experiment.state), []
  for count in (1, 4):
    monkeypatch.setattr(parallel, 'devices', lambda n=count: jax.devices()[:n])
    results.append(_gradients(experiment.training, state))
  one = jax.tree_util.tree_leaves_with_path(results[0])
  four = jax.tree.leaves(results[1])
  gradient_norm = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(results[0].params)))
  for (path, x), y in zip(one, four, strict=True):
    # A bias before a batch norm has no gradient, only rounding.
    is_idle = "linear_0']['b']" in jax.tree_util.keystr(path)
    scale = gradient_norm if is_idle else np.linalg.norm(x)
    assert np.linalg.norm(x - y) <= 3e-5 * scale, path


def _step(experiment, count):
  return [
    jax.device_get(experiment.step(step, jax.random.key_data(jax.random.key(step))))
    for step in range(count)
  ]


@pytest.mark.usefixtures('one_device')
@pytest.mark.parametrize(
  ('loss', 'target_network'),
  [
    ('ssl_hsic', True),
    *((name, losses.create(name).needs_target) for name in losses.LOSSES),
  ],
)
def test_training_lowers_the_loss(loss, target_network):
  """Means of 20 steps: a step of 16 images is noisier than what it gains."""
  config = _tiny((8,), target_network=target_network, **{'loss.name': loss})
  config.training.epochs = 3
  config.training.warmup_epochs = 0
  config.optimizer.base_learning_rate = 0.1
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  scalars = _step(experiment, 140)
  assert all(np.isfinite(value) for step in scalars for value in step.values())
  mean = lambda name, steps: np.mean([step[name] for step in steps])
  first, last = scalars[:20], scalars[-20:]
  assert mean('loss', last) < mean('loss', first) - 0.04
  assert mean('classifier_loss', last) < mean('classifier_loss', first) - 0.02


def test_loss_that_needs_a_target_network_is_refused_without_one():
  changes = {'loss.name': 'byol', 'target_network': False}
  with pytest.raises(
    ValueError, match=r'byol needs a target network; use config\.targ'
  ):
    pretrain.Pretrain('train', jax.random.key(0), _tiny(**changes))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'loss.info_nce.queue_size': 48},
      r'info_nce has queue_size = 48, .* 2 × 16 .* use a multiple of 32',
    ),
    (
      {'loss.optimizer.adamw.b1': 1.0},
      r'config\.loss\.optimizer: b1 is 1\.0; use 0 or more',
    ),
    ({'optimizer.name': 'lamb'}, r"config\.optimizer: unknown optimiser 'lamb'; use o"),
    ({'optimizer.weight_decay': -1.0}, r'config\.optimizer: weight_decay is -1'),
    ({'optimizer.decayed': ('w', 'positions')}, "'positions' matches no parameter"),
  ],
)
def test_mistake_is_an_error_at_the_start(changes, message):
  changes = {'loss.name': 'info_nce', **changes}
  with pytest.raises(ValueError, match=message):
    pretrain.Pretrain('train', jax.random.key(0), _tiny(**changes))


@pytest.mark.usefixtures('one_device')
def test_target_network_of_simsiam_is_the_online_network():
  preset = digits_simsiam.get_config()
  changes = {name: preset[name] for name in preset if name.startswith('target_')}
  config = _tiny((8,), **changes, **{'loss.name': preset.loss.name})
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  scalars = _step(experiment, 2)
  assert scalars[1]['target_decay'] == 0
  state = jax.device_get(experiment.state)
  for module, weights in state.target_params.items():
    for name, value in weights.items():
      np.testing.assert_array_equal(value, state.params[module][name])


@pytest.mark.usefixtures('one_device')
def test_instruments_are_logged_with_every_step():
  changes = {'loss.name': 'info_nce'}
  config = _tiny((8,), instruments=True, target_network=False, **changes)
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  (scalars,) = _step(experiment, 1)
  # The loss is a mean of log-sums, its reading in kernels one of log-means.
  np.testing.assert_allclose(
    scalars['kernel_info_nce'] + np.log(2 * 16 - 1), scalars['loss'], rtol=1e-5
  )
  assert {'exact_hsic_zy', 'view_mmd', 'uniformity'} <= scalars.keys()
  names = step_lib.scalar_names(
    experiment.training, batch_size=16, feature_size=8, num_classes=10
  )
  assert names == scalars.keys()


@pytest.fixture(scope='module')
def trained():
  """An experiment after two large steps, with its states before, between and after."""
  changes = {'training.warmup_epochs': 0, 'optimizer.base_learning_rate': 0.5}
  config = _tiny((8,), **changes)
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  states = [jax.device_get(parallel.first(experiment.state))]
  for step in range(2):
    scalars = experiment.step(step, jax.random.key_data(jax.random.key(step)))
    states.append(jax.device_get(parallel.first(experiment.state)))
  return experiment, states, scalars


def test_names_of_the_scalars_are_known_before_the_first_step(trained):
  experiment, _, scalars = trained
  names = step_lib.scalar_names(
    experiment.training, batch_size=2, feature_size=8, num_classes=10
  )
  assert names == scalars.keys()


def test_average_is_of_the_updated_parameters(trained):
  experiment, states, _ = trained
  decay = experiment._config.weight_ema_decay
  _, first, second = (state.params for state in states)
  expected = jax.tree.map(lambda x, y: (decay * x + y) / (1 + decay), first, second)
  params, _ = experiment._averaged_network()
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, jax.device_get(parallel.first(params)), expected)


def test_collapse_is_watched_in_what_is_measured(caplog):
  config = _tiny(**{'evaluators.names': ('knn',)})
  minima = {'projection_std': 0.1, 'knn_top1': 0.5, 'effective_rank': 2.0}
  config.runner.collapse.minima = minima
  with caplog.at_level(logging.WARNING):
    pretrain.Pretrain('train', jax.random.key(0), config)
  (message,) = [x.getMessage() for x in caplog.records if 'collapse' in x.getMessage()]
  assert (
    "not watched by effective_rank, which is not measured: add 'collapse'" in message
  )
  config.runner.collapse.minima = minima | {'hsic_zx': 1.0}
  message = r'collapse\.minima has hsic_zx, which nothing measures; watch one of'
  with pytest.raises(ValueError, match=message):
    pretrain.Pretrain('train', jax.random.key(0), config)


def test_target_network_follows_the_updated_online_network(trained):
  _, states, _ = trained
  weights = lambda params: params['encoder/stem_conv']['w']
  assert np.any(weights(states[0].target_params) != weights(states[0].params))
  for before, after in itertools.pairwise(states):
    expected = 0.9 * weights(before.target_params) + 0.1 * weights(after.params)
    np.testing.assert_allclose(
      weights(after.target_params), expected, rtol=1e-4, atol=1e-5
    )


def test_evaluation_measures_without_changing_the_state(trained):
  experiment, _, _ = trained
  before = jax.device_get(experiment.state)
  scalars = experiment.evaluate(2, jax.random.key_data(jax.random.key(0)))
  assert 0.3 < scalars['knn_top1'] <= 1
  assert 0 <= scalars['online_top1'] <= 1
  assert 1 <= scalars['effective_rank'] <= 8
  assert 1 <= scalars['rankme'] <= 8
  assert 0 < scalars['embedding_std'] <= 1
  after = jax.device_get(experiment.state)
  for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.fixture
def made_up_imagenet(monkeypatch):
  """Random images and labels in place of ImageNet's."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (16, 40, 48, 3), dtype=np.uint8)
  labels = np.arange(16, dtype=np.int32)
  made_up = sources.ArraySource(images, labels, num_classes=1000)
  monkeypatch.setitem(sources.SOURCES, 'tfds', lambda argument, split: made_up)


@pytest.mark.usefixtures('made_up_imagenet', 'one_device')
def test_published_configuration_takes_two_steps():
  """LARS, BYOL's augmentation and bottlenecks, of few channels at 32 pixels."""
  config = imagenet.get_config()
  config.data.crop_size = 32
  config.data.num_workers = 0
  config.training.batch_size = 4
  config.loss.ssl_hsic.block_size = 2
  config.network.encoder_options = {
    'blocks_per_group': (1, 1),
    'channels_per_group': (8, 16),
  }
  config.network.head = {'hidden_size': 64, 'output_size': 32}
  config.evaluators.knn.k = 5
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  before = jax.device_get(experiment.state.params)
  scalars = _step(experiment, 2)[-1]
  assert all(np.isfinite(value) for value in scalars.values())
  after = jax.device_get(experiment.state.params)
  moved = [
    np.any(x != y)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
  ]
  # Behind a last batch norm of scale zero, weights move from the third step on.
  assert np.mean(moved) > 0.5


def test_published_configuration_has_the_published_length():
  config = imagenet.get_config()
  assert build.num_steps(config, num_examples=1_281_167) == 312_784


def test_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='batch size 20 does not divide over 8 devices'):
    pretrain.Pretrain('train', jax.random.key(0), _tiny(**{'training.batch_size': 20}))
