"""InfoNCE and BYOL against NumPy and Optax, and on any number of devices."""

import functools

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
  params = loss.init(jax.random.key(0))
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


@pytest.mark.parametrize('num_devices', [1, 2, 4, 8])
@pytest.mark.parametrize(
  ('name', 'with_target'), [('info_nce', False), ('info_nce', True), ('byol', True)]
)
def test_loss_and_gradient_are_equal_on_any_number_of_devices(
  num_devices, name, with_target
):
  loss = losses.create(name)
  images = jax.random.normal(jax.random.key(2), (4, 16, 6))
  weights = jax.random.normal(jax.random.key(3), (6, 8))

  def of_weights(weights, images, axis_name=None):
    z = losses.l2_normalize(images @ weights)
    projections = losses.Projections(z[:2], z[2:] if with_target else None)
    return loss((), jax.random.key(1), projections, axis_name)

  value_and_grad = functools.partial(jax.value_and_grad, has_aux=True)
  expected = jax.jit(value_and_grad(of_weights))(weights, images)
  spread = images.reshape(4, num_devices, -1, 6).swapaxes(0, 1)
  per_device = value_and_grad(functools.partial(of_weights, axis_name='i'))
  actual = jax.pmap(
    lambda images: jax.lax.pmean(per_device(weights, images), 'i'),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )(spread)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
  ('name', 'with_target'), [('info_nce', False), ('info_nce', True), ('byol', True)]
)
def test_collapsed_features_give_finite_gradients(name, with_target):
  def of_features(x):
    z = losses.l2_normalize(x)
    return _value(name, losses.Projections(z, z if with_target else None))[0]

  for features in (jnp.ones([2, 4, 8]), jnp.zeros([2, 4, 8])):
    value, gradient = jax.value_and_grad(of_features)(features)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
