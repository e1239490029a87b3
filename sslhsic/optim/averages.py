"""Moving averages of parameters: the target network, and for evaluation."""

import chex
import jax
import jax.numpy as jnp
import optax

from sslhsic.optim import promotion


def ema_update(
  target: optax.Params, online: optax.Params, decay: chex.Numeric
) -> optax.Params:
  """Moves the target parameters towards the online ones: τ·target + (1 − τ)·online."""
  chex.assert_trees_all_equal_shapes_and_dtypes(target, online)
  return optax.incremental_update(online, target, 1 - decay)


def weight_ema(decay: float = 0.999) -> optax.GradientTransformation:
  """Averages parameters over training for evaluation, in float32.

  a_t = d·a_(t−1) + (1 − d)·w_t from a_0 = 0, returned as a_t / (1 − dᵗ), so that the
  zeros of the start leave no trace: after one update the average is the parameters.

  Args:
    decay: d.

  Returns:
    A transformation for `averaged, state = update(params, state)`: it takes parameters
    in the place of gradients.
  """
  return promotion.promoting(
    optax.ema(decay, debias=True, accumulator_dtype=jnp.float32)
  )


def averaged(state: optax.EmaState, decay: float = 0.999) -> optax.Params:
  """Reads the averaged parameters a_t / (1 − dᵗ) off the state of `weight_ema`.

  Args:
    state: after at least one update; before, there is nothing to average (0/0).
    decay: d, as given to `weight_ema`.
  """
  # Optax raises the float d to the integer t, which strict promotion forbids.
  with jax.numpy_dtype_promotion('standard'):
    return optax.tree.bias_correction(state.ema, decay, state.count)
