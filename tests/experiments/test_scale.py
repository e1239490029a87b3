"""Pre-training in microbatches and in bfloat16, against the whole batch in float32."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic import losses, parallel
from sslhsic.data import loader, sources
from sslhsic.networks import layers
from sslhsic.pretraining import step

BATCH_SIZE = 64
# At γ = 3 the two parts of the loss cancel, on these features.
SETTINGS = {'ssl_hsic': {'block_size': 1, 'gamma': 1.0}}


@pytest.fixture(scope='module')
def batch():
  """A global batch, on the host."""
  source = sources.create('digits', 'train')
  return next(loader.views(source, batch_size=BATCH_SIZE, seed=0))


@pytest.fixture(scope='module')
def plain():
  """The experiment as configured: whole batches, float32."""
  return _experiment()


def _experiment(mode='eval', **changes):
  config = digits.get_config()
  config.training.batch_size = BATCH_SIZE
  config.loss.ssl_hsic.block_size = 1
  config.augment.views = ({'policy': 'none'},) * 2
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {
    'blocks_per_group': (1,),
    'channels_per_group': (4,),
  }
  config.update_from_flattened_dict(changes)
  return pretrain.Pretrain(mode, jax.random.key(0), config)


def _without_batch_statistics(monkeypatch, make, batch):
  """Frees all networks of statistics of a batch; returns experiment and state.

  In encoders a scale of every channel replaces batch norm, in heads it has the
  statistics of this batch once and for all. Without those, features would be almost
  equal, and the gradient of HSIC what is left of rounding.
  """
  plain = layers.batch_norm

  def batch_norm(x, *, name, **settings):
    if x.ndim == 2:
      return plain(x, name=name, **settings)
    shape = (1,) * (x.ndim - 1) + x.shape[-1:]
    return x * hk.get_parameter(f'{name}_scale', shape, init=jnp.ones)

  monkeypatch.setattr(layers, 'batch_norm', batch_norm)
  experiment = make()

  def states(training, state, batch, rng, seed_key):
    del rng
    views, model = step.augment_views(training, seed_key, batch), training.model
    changed = {
      'network_state': model.online_features(state.params, state.network_state, views)
    }
    if model.target:
      changed['target_state'] = model.target_features(
        state.target_params, state.target_state, views
      )
    return {name: new_state for name, (_, new_state) in changed.items()}

  changed = _run(experiment, batch, ['vicreg'], states)['vicreg']

  def fixed(x, *, is_training, **settings):
    del is_training
    return batch_norm(x, is_training=False, **settings)

  monkeypatch.setattr(layers, 'batch_norm', fixed)
  return experiment, parallel.first(experiment.state)._replace(**changed)


def _run(experiment, batch, names, function, *, num_devices=1, state=None):
  """Results of a function of (training, state, batch, …) by loss, from one program.

  It runs on `num_devices` devices, at `state` or else the state of the experiment. By
  default each result is a `step.Gradients`.
  """

  def of_all(state, batch, *keys):
    results = {}
    for name in names:
      loss = losses.create(name, **SETTINGS.get(name, {}))
      training = experiment.training._replace(loss=loss)
      params = loss.init(keys[0], 8)
      results[name] = function(
        training, state._replace(loss_params=params), batch, *keys
      )
    return results

  state = state or parallel.first(experiment.state)
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(parallel, 'devices', lambda: jax.devices()[:num_devices])
    mapped = parallel.pmap(of_all, in_axes=(0, 0, None, None))
    keys = jax.random.key(1), jax.random.key(0)
    arguments = parallel.replicate(state), parallel.shard(batch), *keys
    return jax.device_get(parallel.first(mapped(*arguments)))


def _in_microbatches(count):
  """`step.gradients` with another number of microbatches."""

  def gradients(training, *arguments):
    return step.gradients(training._replace(num_microbatches=count), *arguments)

  return gradients


def _by_hand(num_microbatches, training, state, batch, rng, seed_key):
  """`step.gradients` as one graph that keeps all, differentiated as a whole."""
  views, model = step.augment_views(training, seed_key, batch), training.model

  def features(forward, params, network_state):
    parts = []
    for j in range(num_microbatches):
      rows = [view[j::num_microbatches] for view in views]
      part, network_state = forward(params, network_state, rows)
      parts.append(part)
    interleave = lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:])
    return jax.tree.map(interleave, *parts), network_state

  def loss(params, loss_params):
    online, network_state = features(model.online_features, params, state.network_state)
    target, target_state = None, None
    if model.target:
      target, target_state = features(
        model.target_features, state.target_params, state.target_state
      )
      target = jax.lax.stop_gradient(target)
    value, (scalars, loss_state) = step.total_loss(
      training, online, loss_params, state.loss_state, target, batch, rng
    )
    return value, (network_state, target_state, loss_state, scalars)

  grad_fn = jax.grad(loss, argnums=(0, 1), has_aux=True)
  gradients, rest = grad_fn(state.params, state.loss_params)
  return step.Gradients(*gradients, *rest)


def _assert_close(actual, expected, tolerance):
  """Relative to the size of each array; of `step.Gradients`."""
  gradient_norm = optax.tree.norm(expected.params)
  leaves = jax.tree_util.tree_leaves_with_path(expected)
  for (path, y), x in zip(leaves, jax.tree.leaves(actual), strict=True):
    # A bias before a batch norm has no gradient, only rounding.
    is_idle = "linear_0']['b']" in jax.tree_util.keystr(path)
    size = gradient_norm if is_idle else np.linalg.norm(y)
    assert np.linalg.norm(x - y) <= tolerance * size, path


@pytest.mark.parametrize('target_network', [True, False])
def test_microbatched_gradient_is_that_of_the_whole_batch(
  monkeypatch, batch, target_network
):
  """Without statistics of a batch, on two devices.

  Of a loss on unit vectors, one on features as they are, and one of predictions and
  targets: parts know nothing else of a loss.
  """
  names = ['ssl_hsic', 'vicreg', *(['byol'] if target_network else [])]
  # Of equal views, some scalars would be rounding alone.
  views = {'augment.views': ({'policy': 'flip'},) * 2}
  make = functools.partial(_experiment, target_network=target_network, **views)
  experiment, state = _without_batch_statistics(monkeypatch, make, batch)
  by_hand = functools.partial(_by_hand, 1)
  expected = _run(experiment, batch, names, by_hand, state=state)
  microbatched = _in_microbatches(4)
  actual = _run(experiment, batch, names, microbatched, num_devices=2, state=state)
  for name in names:
    _assert_close(actual[name], expected[name], 1e-5)


def test_batch_statistics_are_those_of_each_microbatch(plain, batch):
  """Gradients, moving averages and scalars."""
  names = ['ssl_hsic']
  by_hand = functools.partial(_by_hand, 4)
  expected = _run(plain, batch, names, by_hand)['ssl_hsic']
  microbatched = _in_microbatches(4)
  of_one = _run(plain, batch, names, microbatched)['ssl_hsic']
  _assert_close(of_one, expected, 1e-5)
  counter = of_one.network_state['encoder/stem_batchnorm/~/mean_ema']['counter']
  assert counter == 2 * 4  # Views and microbatches.
  # At the start, a batch norm of almost equal features magnifies rounding.
  of_two = _run(plain, batch, names, microbatched, num_devices=2)['ssl_hsic']
  _assert_close(of_two, expected, 1e-3)


def test_memory_falls_with_the_number_of_microbatches(plain, batch):
  """In BYOL, whose loss itself takes little."""
  training = plain.training._replace(loss=losses.create('byol'))
  state = plain.state._replace(loss_params=())
  used = {}
  for count in (1, 4):
    batch_of = {name: np.concatenate([x] * 4) for name, x in batch.items()}
    with pytest.MonkeyPatch.context() as patched:
      patched.setattr(parallel, 'devices', lambda: jax.devices()[:1])
      gradients = functools.partial(_in_microbatches(count), training)
      mapped = parallel.pmap(gradients, in_axes=(0, 0, None, None))
      arguments = (
        parallel.replicate(parallel.first(state)),
        parallel.shard(batch_of),
        jax.random.key(1),
        jax.random.key(0),
      )
      analysis = mapped.lower(*arguments).compile().memory_analysis()
    used[count] = analysis.temp_size_in_bytes
  assert used[4] < 0.5 * used[1], used


def test_bfloat16_is_close_to_float32_and_leaves_the_state_in_float32(
  monkeypatch, plain, batch
):
  names = ['vicreg']
  exact = _run(plain, batch, names, _in_microbatches(1))['vicreg']
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  changes = {'training.precision': 'bfloat16', 'loss.name': 'vicreg'}
  experiment = _experiment('train', **changes)
  rounded = _run(experiment, batch, names, step.gradients)['vicreg']
  np.testing.assert_allclose(rounded.scalars['loss'], exact.scalars['loss'], rtol=0.01)
  difference = optax.tree.sub(rounded.params, exact.params)
  ratio = optax.tree.norm(difference) / optax.tree.norm(exact.params)
  assert 1e-3 < ratio < 0.15

  types = lambda: jax.tree.map(lambda x: x.dtype, experiment.state)
  before = types()
  scalars = experiment.step(0, jax.random.key_data(jax.random.key(0)))
  assert types() == before
  assert {str(x.dtype) for x in scalars.values()} == {'float32'}
  assert {str(x) for x in jax.tree.leaves(before)} == {'float32', 'int32'}


def test_microbatches_that_do_not_divide_are_refused():
  with pytest.raises(
    ValueError, match='8 images per device do not divide into 3 micro'
  ):
    _experiment(**{'training.num_microbatches': 3})
