"""Schedules against values by hand, and against Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslhsic import optim


def test_scaled_learning_rate():
  assert optim.scaled_learning_rate(0.4, 4096) == pytest.approx(6.4)
  assert optim.scaled_learning_rate(0.4, 64) == pytest.approx(0.1)


def test_warmup_cosine():
  schedule = optim.warmup_cosine(2.0, warmup_steps=10, total_steps=50)
  steps = [0, 1, 5, 10, 20, 30, 50, 60]
  expected = [0, 0.2, 1, 2, 1 + np.sqrt(0.5), 1, 0, 0]
  values = [jax.jit(schedule)(jnp.int32(step)) for step in steps]
  np.testing.assert_allclose(values, expected, atol=1e-6)


def test_no_warmup_starts_at_the_peak():
  schedule = optim.warmup_cosine(2.0, warmup_steps=0, total_steps=50)
  np.testing.assert_allclose([schedule(0), schedule(25)], [2, 1], atol=1e-6)


@pytest.mark.parametrize('warmup_steps', [-1, 50, 60])
def test_warmup_fits_into_the_schedule(warmup_steps):
  with pytest.raises(ValueError, match=f'warm-up of {warmup_steps} steps'):
    optim.warmup_cosine(1.0, warmup_steps, 50)


def test_warmup_drops():
  schedule = optim.warmup_drops(2.0, 10, 100, (0.7, 0.9))
  steps = [0, 5, 10, 69, 70, 89, 90, 99]
  expected = [0, 1, 2, 2, 0.2, 0.2, 0.02, 0.02]
  values = [jax.jit(schedule)(jnp.int32(step)) for step in steps]
  np.testing.assert_allclose(values, expected, atol=1e-6)
  no_warmup = optim.warmup_drops(2.0, 0, 100, (0.5,))
  np.testing.assert_allclose([no_warmup(0), no_warmup(50)], [2, 0.2], rtol=1e-6)
  cosine = optim.warmup_drops(2.0, 10, 50, ())
  np.testing.assert_allclose(cosine(30), optim.warmup_cosine(2.0, 10, 50)(30))


@pytest.mark.parametrize('drops', [(0.05,), (0.5, 1.0)])
def test_drops_are_between_warmup_and_end(drops):
  with pytest.raises(ValueError, match=r'of 100 steps, a warm-up of 10'):
    optim.warmup_drops(1.0, 10, 100, drops)


def test_cosine_on_the_host_is_that_of_optax():
  expected = optax.cosine_decay_schedule(0.2, 10)
  for step in (0, 3, 5, 10):
    np.testing.assert_allclose(
      optim.cosine(0.2, step, 10), expected(np.float32(step)), rtol=1e-6, atol=1e-8
    )


def test_target_decay():
  steps = jnp.array([0, 50, 100])
  decays = jax.jit(lambda k: optim.target_decay(k, 100, base_decay=0.9))(steps)
  np.testing.assert_allclose(decays, [0.9, 0.95, 1.0], rtol=1e-6)
  np.testing.assert_allclose(optim.target_decay(0, 100), 0.99, rtol=1e-6)


def test_constant_target_decay_stays():
  decays = optim.target_decay(jnp.arange(3), 3, base_decay=0.7, schedule='constant')
  np.testing.assert_allclose(decays, [0.7, 0.7, 0.7], rtol=1e-6)


def test_target_decay_refuses_an_unknown_schedule():
  with pytest.raises(ValueError, match=r"schedule 'linear'; use one of cosine, const"):
    optim.target_decay(0, 10, schedule='linear')
