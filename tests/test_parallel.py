"""Batches on devices."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import parallel


def test_batch_is_spread_in_order():
  batch = {'image': np.arange(32).reshape(16, 2)}
  sharded = parallel.shard(batch)['image']
  assert sharded.shape == (8, 2, 2)
  assert len(sharded.sharding.device_set) == 8
  np.testing.assert_array_equal(sharded.reshape(16, 2), batch['image'])


def test_replicated_tree_has_a_copy_on_every_device():
  tree = {'w': jnp.arange(3.0), 'n': np.int32(7)}
  replicated = parallel.replicate(tree)
  assert replicated['w'].shape == (8, 3)
  assert len(replicated['w'].sharding.device_set) == 8
  assert all(x.data.shape == (1, 3) for x in replicated['w'].addressable_shards)
  first = parallel.first(replicated)
  np.testing.assert_array_equal(first['w'], tree['w'])
  assert (first['n'].shape, first['n'].dtype, first['n']) == ((), np.int32, 7)


def test_first_copy_outlives_a_donated_array():
  replicated = parallel.replicate(jnp.arange(3.0))
  before = parallel.first(replicated)
  step = parallel.pmap(lambda x: x + 1, donate_argnums=(0,))
  for _ in range(3):
    replicated = step(replicated)
  np.testing.assert_array_equal(before, [0, 1, 2])
  np.testing.assert_array_equal(parallel.first(replicated), [3, 4, 5])


def test_replicating_and_reading_back_allocates_no_second_copy_on_a_device():
  tree = jnp.zeros(1 << 10)
  replicated = parallel.replicate(tree)
  live = lambda: {id(x) for x in jax.live_arrays()}
  before = live()
  host = parallel.first(replicated)
  assert isinstance(host, np.ndarray)
  # Shards are counted as arrays of their own; none is larger than one copy.
  assert all(x.size <= tree.size for x in jax.live_arrays() if id(x) not in before)


def test_mapped_function_sees_its_axis():
  total = parallel.pmap(lambda x: jax.lax.psum(x, parallel.AXIS_NAME))
  np.testing.assert_array_equal(total(jnp.arange(8)), jnp.full(8, 28))


class _Holder:
  """An experiment in small: arrays, and a mapped method of its own."""

  def __init__(self):
    self.state = parallel.replicate(np.zeros(1000, np.float32))
    self.step = parallel.pmap(self._step, donate_argnums=(0,))

  def _step(self, x):
    return x + 1


def test_arrays_go_with_the_object_whose_method_was_mapped():
  def make_and_use():
    holder = _Holder()
    holder.state = holder.step(holder.state)
    return weakref.ref(holder)

  gc.collect()
  before = len(jax.live_arrays())
  references = [make_and_use() for _ in range(3)]
  gc.collect()
  assert not any(reference() for reference in references)
  assert len(jax.live_arrays()) == before


def test_batch_that_does_not_divide_is_refused_with_the_cure():
  message = 'batch size 100 does not divide over 8 devices; use a multiple of 8'
  with pytest.raises(ValueError, match=message):
    parallel.per_device(100)
