"""What is not finite is found, and a collapse told once."""

import jax.numpy as jnp
import pytest

from sslhsic.runs import health


def test_step_that_is_not_finite_is_named_with_all_its_terms():
  scalars = {
    'loss': jnp.float32(jnp.inf),
    'gradient_norm': jnp.float32(1),
    'hsic_zz': jnp.float32(jnp.nan),
  }
  with pytest.raises(health.NotFiniteError) as raised:
    health.check_scalars(7, scalars)
  assert raised.value.step == 7
  assert raised.value.terms == {'loss': 'inf', 'hsic_zz': 'nan'}
  health.check_scalars(7, scalars | {'loss': jnp.float32(0)})  # The rest may be NaN.


def test_array_that_is_not_finite_is_named():
  arrays = {'w': jnp.ones(3), 'steps': jnp.int32(2), 'none': None}
  health.check_arrays(1, arrays)
  with pytest.raises(health.NotFiniteError, match=r"\['w'\] is not finite"):
    health.check_arrays(1, arrays | {'w': jnp.array([1.0, jnp.nan])})


def test_collapse_is_told_once_an_episode():
  watch = health.CollapseWatch({'projection_std': 0.1}, patience=2)
  told = [
    watch.look({'projection_std': value})
    for value in (0.01, 0.5, 0.01, 0.02, 0.03, 0.5, 0.01, 0.01)
  ]
  first, second = (text for text in told if text)
  assert told.index(first) == 3
  assert first == 'collapse? projection_std 0.02 < 0.1'
  assert told[-1] == second
  assert watch.warning == second
  watch.look({'loss': 1.0})  # A step that does not log it changes nothing.
  assert watch.warning == second
  watch.look({'projection_std': 0.2})
  assert watch.warning == ''
