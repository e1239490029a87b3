"""More than two views: every loss by its definition, and on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sslhsic import hsic, kernels, losses

SETTINGS = {'ssl_hsic': {'block_size': 1}}
BATCH_SIZE, DIM = 8, 6


def _projections(num_views, num_targets):
  x = jax.random.normal(jax.random.key(0), [num_views + num_targets, BATCH_SIZE, DIM])
  x = losses.l2_normalize(x + 2 * x[:1])
  return losses.Projections(x[:num_views], x[num_views:] if num_targets else None)


def _value(name, projections, **settings):
  loss = losses.create(name, **SETTINGS.get(name, {}), **settings)
  params = loss.init(jax.random.key(0), DIM)
  return jax.jit(loss)(params, jax.random.key(1), projections)[0]


def _pairs(projections):
  """(online view, other view) in float64, as the docstrings say."""
  online = np.asarray(projections.online, np.float64)
  if projections.target is None:
    count = range(len(online))
    return [(online[v], online[w]) for v in count for w in count if v != w]
  target = np.asarray(projections.target, np.float64)
  return [(x, y) for v, x in enumerate(online) for w, y in enumerate(target) if v != w]


@pytest.mark.parametrize(('num_views', 'num_targets'), [(3, 1), (4, 2), (4, 4)])
def test_byol_is_the_mean_over_pairs(num_views, num_targets):
  projections = _projections(num_views, num_targets)
  terms = [np.sum((x - y) ** 2, axis=1).mean() for x, y in _pairs(projections)]
  np.testing.assert_allclose(_value('byol', projections), 2 * np.mean(terms), 1e-5)


@pytest.mark.parametrize(('num_views', 'num_targets'), [(3, 0), (3, 1), (4, 2)])
def test_info_nce_is_the_mean_over_ordered_pairs(num_views, num_targets):
  projections = _projections(num_views, num_targets)
  everything = np.asarray(projections.online, np.float64).reshape(-1, DIM)
  terms = []
  for x, y in _pairs(projections):
    for i in range(BATCH_SIZE):
      others = y
      if not num_targets:
        others = everything[np.any(everything != x[i], axis=1)]
        assert len(others) == len(everything) - 1
      terms.append(special.logsumexp(others @ x[i] / 0.2) - y[i] @ x[i] / 0.2)
  value = _value('info_nce', projections, temperature=0.2)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)


@pytest.mark.parametrize('name', ['barlow_twins', 'vicreg'])
@pytest.mark.parametrize(('num_views', 'num_targets'), [(3, 0), (4, 2), (3, 1)])
def test_loss_is_the_mean_of_the_loss_of_two_views(name, num_views, num_targets):
  """Of the invariance; the spread is of the online views, which pairs see unevenly."""
  projections = _projections(num_views, num_targets)
  weights = {'variance_weight': 0.0, 'covariance_weight': 0.0}
  settings = weights if name == 'vicreg' else {}
  terms = [
    _value(name, losses.Projections(jnp.float32(np.stack(pair))), **settings)
    for pair in _pairs(projections)
  ]
  value = _value(name, projections, **settings)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)


def test_spread_of_vicreg_is_twice_the_mean_over_the_online_views():
  only_spread = {'invariance_weight': 0.0}
  projections = _projections(4, 2)
  terms = [
    _value(
      'vicreg',
      losses.Projections(jnp.stack([projections.online[v]] * 2)),
      **only_spread,
    )
    for v in range(4)
  ]
  value = _value('vicreg', projections, **only_spread)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)


@pytest.mark.parametrize(('num_views', 'num_targets'), [(3, 0), (6, 2)])
def test_ssl_hsic_is_of_all_features_of_an_image(num_views, num_targets):
  projections = _projections(num_views, num_targets)
  assert len(projections.views) == num_views + num_targets
  terms = hsic.exact(projections.views, kernels.InverseMultiquadric(1.0))
  loss = losses.create('ssl_hsic', estimator='exact')
  params = loss.init(jax.random.key(0), DIM)
  value, _ = jax.jit(loss)(params, jax.random.key(1), projections)
  np.testing.assert_allclose(value, 3 * terms.hsic_zz**0.5 - terms.hsic_zy, rtol=1e-5)


@pytest.mark.parametrize('name', losses.LOSSES)
@pytest.mark.parametrize(('num_views', 'num_targets'), [(6, 2), (3, 0)])
def test_loss_is_equal_on_any_number_of_devices(name, num_views, num_targets):
  loss = losses.create(name, **SETTINGS.get(name, {}))
  if loss.needs_target and not num_targets:
    return
  params = loss.init(jax.random.key(0), DIM)

  def total(online, target, axis_name=None):
    projections = losses.Projections(online, target)
    return loss(params, jax.random.key(1), projections, axis_name)[0]

  online, target = _projections(num_views, num_targets)
  value, gradient = jax.jit(jax.value_and_grad(total))(online, target)
  spread = lambda x: x.reshape(len(x), 4, -1, DIM).swapaxes(0, 1)
  mapped = jax.pmap(
    jax.value_and_grad(functools.partial(total, axis_name='i')),
    axis_name='i',
    devices=jax.devices()[:4],
  )
  values, gradients = mapped(*(x if x is None else spread(x) for x in (online, target)))
  # A loss is a difference of terms, so its error is theirs.
  np.testing.assert_allclose(values, np.full(4, value), rtol=1e-5, atol=1e-6)
  gathered = gradients.swapaxes(0, 1).reshape(gradient.shape) / 4
  error = jnp.linalg.norm(gathered - gradient)
  assert error <= 1e-5 * jnp.linalg.norm(gradient)


@pytest.mark.parametrize(
  ('online', 'target'),
  [((1, 4, 8), None), ((2, 4, 8), (3, 4, 8)), ((2, 4, 8), (2, 4, 7))],
)
def test_shapes_that_cannot_be(online, target):
  projections = losses.Projections(
    jnp.zeros(online), None if target is None else jnp.zeros(target)
  )
  with pytest.raises(AssertionError):
    losses.create('vicreg')((), jax.random.key(0), projections)


def test_features_that_are_no_projections_are_refused():
  features = jnp.ones((2, 4, 3))
  loss = losses.create('byol')
  with pytest.raises(TypeError, match=r'losses.Projections\(online=…\) with features'):
    loss((), None, features)
  with pytest.raises(AssertionError, match=r'\(4, 3\), expected \[views, images, d\]'):
    loss((), None, losses.Projections(features[0], features))
