"""The losses beside SSL-HSIC against NumPy transcriptions of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from sslhsic import losses


def _projections(with_target, batch_size=16, dim=8):
  x = jax.random.normal(jax.random.key(0), (4, batch_size, dim))
  x = losses.l2_normalize(x + 2 * x[:1])
  return losses.Projections(x[:2], x[2:] if with_target else None)


def _value(name, projections, **config):
  loss = losses.create(name, **config)
  params = loss.init(jax.random.key(0), 8)
  return jax.jit(loss)(params, jax.random.key(1), projections)


def test_info_nce_without_target_is_the_loop_of_the_definition():
  projections = _projections(with_target=False)
  value, metrics = _value('info_nce', projections, temperature=0.2)
  z = np.asarray(projections.online, np.float64).reshape(32, 8)
  terms = []
  for i in range(32):
    others = [j for j in range(32) if j != i]
    logits = z[others] @ z[i] / 0.2
    terms.append(special.logsumexp(logits) - z[(i + 16) % 32] @ z[i] / 0.2)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)
  np.testing.assert_allclose(
    metrics['log_partition'] - metrics['positive_similarity'] / 0.2, value, rtol=1e-5
  )


def test_info_nce_without_target_is_that_of_optax():
  projections = _projections(with_target=False)
  value, _ = _value('info_nce', projections, temperature=0.5)
  labels = jnp.tile(jnp.arange(16), 2)
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    expected = optax.losses.ntxent(
      projections.online.reshape(32, 8), labels, temperature=jnp.float32(0.5)
    )
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_info_nce_with_target_is_a_softmax_over_the_other_view():
  projections = _projections(with_target=True)
  value, metrics = _value('info_nce', projections, temperature=0.2)
  online, target = (np.asarray(x, np.float64) for x in projections)
  terms, hits = [], []
  for view in (0, 1):
    logits = online[view] @ target[1 - view].T / 0.2
    terms.append(special.logsumexp(logits, axis=1) - np.diag(logits))
    hits.append(logits.argmax(axis=1) == np.arange(16))
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)
  np.testing.assert_allclose(metrics['retrieval_top1'], np.mean(hits), rtol=1e-6)


def test_byol_is_the_squared_distance_to_the_other_view():
  projections = _projections(with_target=True)
  online, target = (np.asarray(x, np.float64) for x in projections)
  distances = [
    np.sum((online[view] - target[1 - view]) ** 2, axis=1).mean() for view in (0, 1)
  ]
  value, _ = _value('byol', projections)
  np.testing.assert_allclose(value, sum(distances), rtol=1e-5)


def test_byol_without_target_is_refused_with_the_cure():
  with pytest.raises(ValueError, match=r'use config\.target_network = True'):
    _value('byol', _projections(with_target=False))


def _barlow_twins(x, y, redundancy_weight):
  """Equations 1 and 2 of the paper, with the epsilon of the code's batch norm."""
  dim, terms = x.shape[1], 0.0
  x, y = x - x.mean(axis=0), y - y.mean(axis=0)
  for i in range(dim):
    for j in range(dim):
      norms = (np.mean(x[:, i] ** 2) + 1e-5) * (np.mean(y[:, j] ** 2) + 1e-5)
      correlation = np.mean(x[:, i] * y[:, j]) / np.sqrt(norms)
      terms += (1 - correlation) ** 2 if i == j else redundancy_weight * correlation**2
  return terms


def _vicreg(x, y, u, v, weights):
  """Equations 1 to 6 of the paper: x, y are compared, u and v spread."""
  invariance = np.mean([np.mean((a - b) ** 2) for a, b in zip(x, y, strict=True)])
  variance, covariance = 0.0, 0.0
  for z in (u, v):
    dim = z.shape[1]
    deviation = np.sqrt(z.var(axis=0, ddof=1) + 1e-4)
    variance += np.mean(np.maximum(0, 1 - deviation))
    matrix = np.cov(z, rowvar=False)
    covariance += (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / dim
  return np.dot(weights, [invariance, variance, covariance])


def _raw_projections(with_target):
  """Features of any length and mean."""
  scale = 1 + jnp.arange(8, dtype=jnp.float32)[None, None] / 4
  return jax.tree.map(lambda x: scale * x + 0.3, _projections(with_target))


def test_barlow_twins_without_target_is_the_published_equation():
  projections = _raw_projections(with_target=False)
  value, metrics = _value('barlow_twins', projections, redundancy_weight=0.1)
  x, y = np.asarray(projections.online, np.float64)
  np.testing.assert_allclose(value, _barlow_twins(x, y, 0.1), rtol=1e-4)
  np.testing.assert_allclose(
    metrics['invariance'] + 0.1 * metrics['redundancy'], value, rtol=1e-6
  )


def test_barlow_twins_with_target_compares_with_the_other_view():
  projections = _raw_projections(with_target=True)
  value, _ = _value('barlow_twins', projections, redundancy_weight=0.1)
  online, target = (np.asarray(x, np.float64) for x in projections)
  expected = [_barlow_twins(online[view], target[1 - view], 0.1) for view in (0, 1)]
  np.testing.assert_allclose(value, np.mean(expected), rtol=1e-4)


@pytest.mark.parametrize('with_target', [True, False])
def test_vicreg_is_the_published_equation(with_target):
  projections = _raw_projections(with_target)
  value, _ = _value(
    'vicreg',
    projections,
    invariance_weight=2.0,
    variance_weight=3.0,
    covariance_weight=0.5,
  )
  online = np.asarray(projections.online, np.float64)
  others = online if not with_target else np.asarray(projections.target, np.float64)
  expected = _vicreg(
    online.reshape(32, 8), others[::-1].reshape(32, 8), *online, [2.0, 3.0, 0.5]
  )
  np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_vicreg_of_one_image_is_refused():
  with pytest.raises(ValueError, match='give it two or more'):
    _value('vicreg', losses.Projections(jnp.ones([2, 1, 4])))
