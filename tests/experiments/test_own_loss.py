"""A loss and an optimiser of one's own, registered, and set from the command line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from ml_collections import config_flags

from configs.pretrain import digits
from configs.tables import losses as table
from experiments import pretrain
from sslhsic import collectives, losses, optim, parallel


@dataclasses.dataclass(frozen=True)
class Toy(losses.Loss):
  """−s·E⟨x, y⟩ over pairs of views, and an offset that falls at a constant rate."""

  strength: float = 1.0
  shift: float | None = None

  def init(self, rng, dim):
    del rng, dim
    return {'offset': jnp.float32(0)}

  def __call__(self, params, rng, projections, axis_name=None, state=()):
    del rng, state
    similarities = jnp.stack([jnp.sum(x * y, axis=1) for x, y in projections.pairs])
    similarity = collectives.global_mean(similarities, axis_name)
    loss = self.strength * (params['offset'] - similarity) + (self.shift or 0.0)
    return loss, {'loss': loss, 'similarity': similarity}


def sign(learning_rate, *, weight_decay, decayed, scale=1.0):
  """Steps of equal length, along the sign of the gradient."""
  del weight_decay, decayed
  return optax.chain(
    optax.scale_by_sign(),
    optax.scale(scale),
    optax.scale_by_learning_rate(learning_rate),
  )


@pytest.fixture
def _registered(monkeypatch):
  monkeypatch.setitem(losses.LOSSES, 'toy', Toy)
  monkeypatch.setitem(optim.OPTIMIZERS, 'sign', sign)
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])


def _parse(*arguments):
  values, argv = flags.FlagValues(), ['', f'--config={digits.__file__}', *arguments]
  holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
  values(argv)
  return holder.value


@pytest.mark.usefixtures('_registered')
def test_they_train_with_their_settings():
  config = _parse(
    '--config.loss.name=toy',
    '--config.loss.toy.strength=2.0',
    '--config.loss.toy.shift=10',
    '--config.loss.optimizer.name=sgd',
    '--config.loss.optimizer.learning_rate=0.1',
    '--config.loss.optimizer.sgd.momentum=0.5',
    '--config.optimizer.name=sign',
    '--config.optimizer.sign.scale=0.5',
    '--config.optimizer.base_learning_rate=0.16',  # 0.01 for 16 images.
    '--config.training.batch_size=16',
    '--config.training.warmup_epochs=0',
    '--config.network.head={"hidden_size": 16, "output_size": 8}',
    '--config.network.encoder_options='
    '{"blocks_per_group": (1,), "channels_per_group": (4,)}',
  )
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  before = jax.device_get(experiment.state.params)
  first = experiment.step(0, jax.random.key(0))
  after = jax.device_get(experiment.state.params)
  second = experiment.step(1, jax.random.key(1))

  # The offset is 0, then −0.1·2: the gradient is s = 2, with momentum 2 and 3.
  for scalars, offset in ((first, 0.0), (second, -0.2)):
    expected = 2 * (offset - scalars['similarity']) + 10
    np.testing.assert_allclose(scalars['loss'], expected, rtol=1e-5)
  (offset,) = experiment.state.loss_params['offset']
  np.testing.assert_allclose(offset, -0.1 * (2 + 3), rtol=1e-6)

  steps = np.concatenate(
    [
      np.abs(x - y).ravel()
      for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    ]
  )
  moved = steps[steps > 0]
  assert len(moved) > len(steps) / 2
  np.testing.assert_allclose(moved, 0.01 * 0.5, rtol=1e-3)


@pytest.mark.usefixtures('_registered')
@pytest.mark.parametrize(
  ('argument', 'error'),
  [
    ('--config.loss.toy.shift=far', flags.IllegalFlagValueError),
    ('--config.loss.toy.strengh=2.0', AttributeError),
    ('--config.optimizer.sign.scale=far', flags.IllegalFlagValueError),
  ],
)
def test_settings_have_names_and_types(argument, error):
  with pytest.raises(error):
    _parse(argument)


@pytest.mark.usefixtures('_registered')
def test_table_of_losses_has_rows_for_it():
  rows = table.get_table('digits')['rows']
  assert rows['Toy, with target network'] == {'loss.name': 'toy'}
  assert rows['Toy, without'] == {'loss.name': 'toy', 'target_network': False}
