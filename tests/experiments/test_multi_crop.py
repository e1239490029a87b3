"""Pre-training with views of two sizes: devices, microbatches, resuming."""

import jax
import numpy as np
import pytest

from benchmarks import tiny_runs
from configs.pretrain import digits_multicrop
from experiments import pretrain
from sslhsic import losses, parallel
from sslhsic.data import loader
from sslhsic.pretraining import step, views
from tests.experiments import forks

BATCH_SIZE = 16
NUM_VIEWS = 4  # Two global ones, and two of four local ones.
# On unit vectors, on features as they are, and of predictions and targets: the step
# knows nothing else of a loss.
LOSSES = ('ssl_hsic', 'vicreg', 'byol')


@pytest.fixture(scope='module')
def experiment():
  config = digits_multicrop.get_config()
  config.augment.views = tuple(
    view | {'policy': 'flip'} for view in config.augment.views[:NUM_VIEWS]
  )
  config.training.batch_size = BATCH_SIZE
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {
    'blocks_per_group': (1,),
    'channels_per_group': (4,),
  }
  return pretrain.Pretrain('eval', jax.random.key(0), config)


@pytest.fixture(scope='module')
def batch(experiment):
  of_views = views.parse(digits_multicrop.get_config().augment.views)
  crops = [view.crop(0, 'bicubic') for view in of_views[:NUM_VIEWS]]
  return next(
    loader.views(experiment.source, batch_size=BATCH_SIZE, seed=0, crops=crops)
  )


def test_image_is_cropped_to_every_view(batch):
  shapes = {name: x.shape for name, x in batch.items() if name.startswith('view')}
  assert shapes == {
    f'view{number}': (BATCH_SIZE, *((8, 8, 1) if number < 3 else (6, 6, 1)))
    for number in range(1, NUM_VIEWS + 1)
  }


def _gradients(experiment, batch, num_devices, num_microbatches=1, names=LOSSES):
  """By loss, from one program."""

  def of_all(state, batch, *keys):
    results = {}
    for name in names:
      settings = {'block_size': 1} if name == 'ssl_hsic' else {}
      loss = losses.create(name, **settings)
      training = experiment.training._replace(
        loss=loss, num_microbatches=num_microbatches
      )
      state = state._replace(loss_params=loss.init(keys[0], 8))
      results[name] = step.gradients(training, state, batch, *keys)
    return results

  state = parallel.first(experiment.state)
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(parallel, 'devices', lambda: jax.devices()[:num_devices])
    mapped = parallel.pmap(of_all, in_axes=(0, 0, None, None))
    keys = jax.random.key(1), jax.random.key(0)
    arguments = parallel.replicate(state), parallel.shard(batch), *keys
    return jax.device_get(parallel.first(mapped(*arguments)))


def _relative_error(found, expected):
  difference = jax.tree.map(np.subtract, found, expected)
  norm = lambda tree: np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(tree)))
  return norm(difference) / norm(expected)


@pytest.fixture(scope='module')
def of_one_device(experiment, batch):
  return _gradients(experiment, batch, num_devices=1)


def test_step_is_equal_on_one_and_four_devices(experiment, batch, of_one_device):
  on_four = _gradients(experiment, batch, num_devices=4)
  for name, expected in of_one_device.items():
    found = on_four[name]
    np.testing.assert_allclose(
      found.scalars['loss'], expected.scalars['loss'], rtol=1e-4, err_msg=name
    )
    # Batch norm of few almost equal features magnifies rounding.
    assert _relative_error(found.params, expected.params) < 1e-3, name


def test_microbatches_are_equal_on_one_and_two_devices(experiment, batch):
  settings = {'num_microbatches': 2, 'names': ('ssl_hsic',)}
  on_one = _gradients(experiment, batch, num_devices=1, **settings)
  on_two = _gradients(experiment, batch, num_devices=2, **settings)
  for name, expected in on_one.items():
    assert _relative_error(on_two[name].params, expected.params) < 1e-3, name


def test_target_network_sees_the_global_views_alone(of_one_device):
  counter = lambda state: state['encoder/stem_batchnorm/~/mean_ema']['counter']
  found = of_one_device['ssl_hsic']
  assert counter(found.network_state) == NUM_VIEWS
  assert counter(found.target_state) == 2


def test_run_with_a_queue_resumes_to_the_same_bits(tmp_path):
  """Three views and a loss with state, stopped half-way by its number of epochs."""
  settings = (
    *tiny_runs.TINY,
    '--config.loss.name=info_nce',
    f'--config.loss.info_nce.queue_size={4 * tiny_runs.BATCH_SIZE}',
    '--config.augment.views=({"policy": "flip"}, {"policy": "flip"}, '
    '{"policy": "flip", "size": 6, "is_global": False})',
  )
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  with forks.forked():
    tiny_runs.train(whole, *settings)
    program = tiny_runs.start(resumed, '--mode=train', *settings)
    program.wait_until(lambda: bool(tiny_runs.steps(resumed)))
    program.send(9)
    program.end()
    tiny_runs.train(resumed, *settings)
  assert tiny_runs.differences(resumed, whole) == []
