"""Batches on devices."""

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
  tree = {'w': jnp.arange(3.0), 'key': jax.random.key(0)}
  replicated = parallel.replicate(tree)
  assert replicated['w'].shape == (8, 3)
  assert len(replicated['w'].sharding.device_set) == 8
  first = parallel.first(replicated)
  np.testing.assert_array_equal(first['w'], tree['w'])
  assert first['key'] == tree['key']


def test_mapped_function_sees_its_axis():
  total = parallel.pmap(lambda x: jax.lax.psum(x, parallel.AXIS_NAME))
  np.testing.assert_array_equal(total(jnp.arange(8)), jnp.full(8, 28))


def test_batch_that_does_not_divide_is_refused_with_the_cure():
  message = 'batch size 100 does not divide over 8 devices; use a multiple of 8'
  with pytest.raises(ValueError, match=message):
    parallel.per_device(100)
