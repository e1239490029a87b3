"""The term of metadata: its value, and that it is added to the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics

from configs.pretrain import digits
from sslhsic import hsic, losses, parallel
from sslhsic.data import sources
from sslhsic.pretraining import build, model, step, views

B, DIM, VIEWS = 16, 5, 2


@pytest.fixture(scope='module')
def features():
  return np.random.default_rng(0).normal(size=(VIEWS, B, DIM)).astype(np.float32)


METADATA = {
  'categories': np.arange(B, dtype=np.int32) % 3,
  'quantities': np.linspace(0, 1, B, dtype=np.float32)[:, None] ** 2,
}


def _gaussian(x):
  distances = metrics.pairwise_distances(x)
  scale = np.median(distances[np.triu_indices(len(x), 1)])
  return jnp.float32(np.exp(-(distances**2) / (2 * scale**2)))


def _expected(features, metadata):
  """Mean over views of the unbiased HSIC, median heuristic throughout."""
  if metadata.ndim == 1:
    gram = jnp.float32(metadata[:, None] == metadata[None, :])
  else:
    gram = _gaussian(metadata)
  return np.mean([hsic.unbiased_hsic(_gaussian(z), gram) for z in features])


@pytest.mark.parametrize('kind', METADATA)
def test_term_is_unbiased_hsic_on_any_number_of_devices(features, kind):
  term = losses.DependenceTerm(metadata='any')
  expected = _expected(features, METADATA[kind])
  value = jax.jit(term)(list(features), METADATA[kind])
  # It is a difference of terms of the size of the kernel.
  np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
  mapped = jax.pmap(
    functools.partial(term, axis_name='i'), axis_name='i', devices=jax.devices()[:4]
  )
  spread = lambda x: x.reshape(4, -1, *x.shape[1:])
  found = mapped([spread(z) for z in features], spread(METADATA[kind]))
  np.testing.assert_allclose(found, np.full(4, value), rtol=1e-4, atol=1e-6)


def _training(**dependence):
  config = digits.get_config()
  config.training.batch_size = B
  config.loss.ssl_hsic.block_size = 1
  config.loss.dependence.update(dependence)
  of_views = views.parse(config.augment.views)
  return build.training(config, of_views, sources.create('digits', 'train[:64]'))


@pytest.mark.parametrize('of', ['embedding', 'projection'])
def test_term_is_added_to_the_loss_with_its_weight(monkeypatch, features, of):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])

  def total(training, embeddings):
    projections = list(features[..., ::-1])
    given = embeddings if training.model.gives_embeddings else None
    online = model.OnlineFeatures(projections, projections[0], None, given)
    batch = {'metadata': METADATA['categories']}
    params = training.loss.init(jax.random.key(0), DIM)
    rng = jax.random.key(1)
    value, (scalars, _) = step.total_loss(
      training, online, params, (), projections, batch, rng
    )
    return value, scalars

  def measure(training):
    mapped = parallel.pmap(functools.partial(total, training))
    value, scalars = mapped([z[None] for z in features])
    return float(value[0]), {name: float(x[0]) for name, x in scalars.items()}

  without, scalars = measure(_training())
  assert 'hsic_za' not in scalars
  with_term, scalars = measure(_training(metadata='colour', weight=-2.0, features=of))
  z = features
  if of == 'projection':  # As the loss sees them: of unit norm.
    z = np.array(losses.l2_normalize(features[..., ::-1]))
  expected = _expected(z, METADATA['categories'])
  assert scalars['hsic_za'] == pytest.approx(expected, rel=1e-4, abs=1e-6)
  assert with_term == pytest.approx(without - 2 * expected, rel=1e-4)


@pytest.mark.parametrize('of', ['embedding', 'projection'])
def test_term_reaches_the_encoder(monkeypatch, write_images, tmp_path, of):
  """From the table beside the images to the gradient, in microbatches, on devices."""
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])
  write_images(tmp_path / 'a', 16)
  rows = [f'a/{n}.jpg,{"red" if n % 3 else "blue"}' for n in range(16)]
  (tmp_path / 'data.csv').write_text('\n'.join(['file,colour', *rows]))

  def gradient(weight):
    config = digits.get_config()
    config.data.update(source=f'folder:{tmp_path}?metadata=data.csv', crop_size=8)
    config.data.update(mean=(0.5,) * 3, std=(0.25,) * 3)
    config.augment.views = ({'policy': 'none'},) * 2
    config.network.head = {'hidden_size': 16, 'output_size': 8}
    config.network.encoder_options = {
      'blocks_per_group': (1,),
      'channels_per_group': (4,),
    }
    config.training.update(batch_size=16, num_microbatches=2)
    config.loss.ssl_hsic.block_size = 2
    config.loss.dependence.update(metadata='colour', weight=weight, features=of)
    of_views, source = views.parse(config.augment.views), build.source(config)
    training = build.training(config, of_views, source)
    state = step.initial_state(training, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), 8)
    mapped = parallel.pmap(
      functools.partial(step.gradients, training), in_axes=(0, 0, None, None)
    )
    batch = parallel.shard(next(build.batches(config, of_views, source)))
    keys = jax.random.key(1), jax.random.key(2)
    found = mapped(parallel.replicate(state), batch, *keys)
    return jax.device_get(parallel.first(found.params))

  none, one, two = map(gradient, (0.0, 1.0, 2.0))
  by_term = optax.tree.sub(one, none)

  def norm(part):
    return optax.tree.norm({k: x for k, x in by_term.items() if k.startswith(part)})

  assert norm('encoder/') > 1e-4
  assert (norm('projector') > 1e-4) == (of == 'projection')
  close = functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-5)
  jax.tree.map(close, optax.tree.sub(two, none), optax.tree.scale(2, by_term))


def test_mistakes_name_the_field():
  with pytest.raises(ValueError, match=r"config\.loss\.dependence: features is 'x'"):
    _training(metadata='colour', features='x')
  config = digits.get_config()
  config.loss.dependence.metadata = 'colour'
  with pytest.raises(ValueError, match=r'dependence\.metadata: example 0 has no meta'):
    build.source(config)
