"""Moving averages against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import optim


def test_ema_update():
  target, online = {'a': {'w': jnp.ones(2)}}, {'a': {'w': jnp.array([3.0, 5.0])}}
  updated = jax.jit(optim.ema_update)(target, online, optim.target_decay(0, 10, 0.75))
  np.testing.assert_allclose(updated['a']['w'], [1.5, 2.0], rtol=1e-6)


def test_ema_update_refuses_other_networks():
  with pytest.raises(AssertionError):
    optim.ema_update({'a': {'w': jnp.ones(2)}}, {'a': {'w': jnp.ones(3)}}, 0.5)


def test_weight_ema_equals_its_formula():
  values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
  average = optim.weight_ema(0.9)
  state = average.init({'w': jnp.asarray(values[0])})
  for t, value in enumerate(values, start=1):
    averaged, state = jax.jit(average.update)({'w': jnp.asarray(value)}, state)
    weights = 0.9 ** np.arange(t - 1, -1, -1)
    expected = weights @ values[:t] / weights.sum()
    np.testing.assert_allclose(averaged['w'], expected, rtol=1e-5, atol=1e-6)
    from_state = optim.averaged(state, 0.9)
    np.testing.assert_allclose(from_state['w'], expected, rtol=1e-5, atol=1e-6)


def test_weight_ema_decays_by_a_thousandth():
  average = optim.weight_ema()
  state = average.init(jnp.zeros(()))
  _, state = average.update(jnp.float32(1.0), state)
  averaged, _ = average.update(jnp.float32(0.0), state)
  # 0.999·0.001 / (1 - 0.999²)
  np.testing.assert_allclose(averaged, 0.999 / 1.999, rtol=1e-4)


def test_weight_ema_accumulates_in_float32():
  state = optim.weight_ema().init({'w': jnp.zeros(2, jnp.bfloat16)})
  assert state.ema['w'].dtype == jnp.float32
