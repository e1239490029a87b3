"""The queue of InfoNCE: a loss with state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sslhsic import losses

DIM, SIZE = 4, 24


def _loss():
  return losses.create('info_nce', temperature=0.2, queue_size=SIZE)


def _projections(seed, batch_size=4):
  x = jax.random.normal(jax.random.key(seed), [4, batch_size, DIM])
  x = losses.l2_normalize(x + x[:1])
  return losses.Projections(x[:2], x[2:])


def test_loss_is_a_softmax_over_the_positive_and_the_queue():
  loss, projections = _loss(), _projections(1)
  queue = loss.init_state(jax.random.key(0), DIM)
  value, _ = jax.jit(loss)((), jax.random.key(0), projections, state=queue)
  online, target = (np.asarray(x, np.float64) for x in projections)
  terms = []
  for q, k in ((online[0], target[1]), (online[1], target[0])):
    for i in range(4):
      logits = np.concatenate([[q[i] @ k[i]], queue.features @ q[i]]) / 0.2
      terms.append(special.logsumexp(logits) - logits[0])
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)


def test_queue_holds_the_last_projections_in_their_order():
  loss = _loss()
  queue = loss.init_state(jax.random.key(0), DIM)
  np.testing.assert_allclose(jnp.linalg.norm(queue.features, axis=1), 1, rtol=1e-5)
  seen = []
  for seed in range(4):  # Eight projections each: the fourth batch replaces the first.
    projections = _projections(seed)
    queue = jax.jit(loss.next_state)(queue, projections)
    seen.append(np.asarray(projections.target).reshape(-1, DIM))
  expected = np.concatenate([seen[3], seen[1], seen[2]])
  np.testing.assert_array_equal(queue.features, expected)
  assert queue.position == 8


@pytest.mark.parametrize('num_devices', [1, 4])
def test_queue_and_loss_are_equal_on_any_number_of_devices(num_devices):
  loss, projections = _loss(), _projections(1)
  queue = loss.init_state(jax.random.key(0), DIM)

  def both(queue, projections, axis_name=None):
    value, _ = loss((), jax.random.key(0), projections, axis_name, queue)
    return value, loss.next_state(queue, projections, axis_name)

  expected = jax.jit(both)(queue, projections)
  spread = jax.tree.map(
    lambda x: x.reshape(2, num_devices, -1, DIM).swapaxes(0, 1), projections
  )
  mapped = jax.pmap(
    functools.partial(both, axis_name='i'),
    axis_name='i',
    in_axes=(None, 0),
    devices=jax.devices()[:num_devices],
  )
  for x, y in zip(
    jax.tree.leaves(mapped(queue, spread)), jax.tree.leaves(expected), strict=True
  ):
    for of_device in x:
      np.testing.assert_allclose(of_device, y, rtol=1e-5, atol=1e-6)


def test_batch_that_does_not_fit_into_the_queue():
  loss, message = _loss(), r'queue_size = 24, .* 2 × 5 projections .* multiple of 10'
  queue = loss.init_state(jax.random.key(0), DIM)
  with pytest.raises(ValueError, match=message):
    loss.next_state(queue, _projections(0, batch_size=5))
  with pytest.raises(ValueError, match=message):
    loss.check_batch(local_batch=1, batch_size=5, num_targets=2)
  loss.check_batch(local_batch=1, batch_size=4, num_targets=2)
  losses.create('info_nce').check_batch(local_batch=1, batch_size=5, num_targets=0)


def test_queue_needs_a_target_network():
  assert _loss().needs_target
  assert not losses.create('info_nce').needs_target
  with pytest.raises(ValueError, match='queue_size needs a target network'):
    _loss()((), jax.random.key(0), losses.Projections(_projections(0).online))
  with pytest.raises(ValueError, match='queue_size is -1'):
    losses.create('info_nce', queue_size=-1)
