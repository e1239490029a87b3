"""Optimisers, schedules and moving averages, composed from Optax.

Weight decay and the trust ratio of LARS act on weights only, which Haiku names 'w':
biases and the scales and offsets of batch norm are left out. Gradients are expected to
be averaged over devices already.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

TARGET_SCHEDULES = ('cosine', 'constant')


def scaled_learning_rate(base: float, batch_size: int) -> float:
  """Scales a learning rate given for 256 images to the global batch: base·B/256."""
  return base * batch_size / 256


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
  """Rises linearly from 0 to `peak`, then falls to 0 at `total_steps` as a cosine.

  Args:
    peak: learning rate at step `warmup_steps`.
    warmup_steps: length of the rise, in steps; it counts towards the total.
    total_steps: length of the whole schedule, in steps.

  Returns:
    A function from the step to the learning rate.

  Raises:
    ValueError: if the warm-up is negative or not shorter than the schedule.
  """
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f'a warm-up of {warmup_steps} steps does not fit into {total_steps}; '
      'use at least 0 and less than the total'
    )
  schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps)
  return lambda step: schedule(jnp.asarray(step, jnp.float32))


def warmup_drops(
  peak: float, warmup_steps: int, total_steps: int, drops: Sequence[float]
) -> optax.Schedule:
  """Rises linearly from 0 to `peak`, and falls to a tenth again and again.

  Args:
    peak: learning rate after `warmup_steps`.
    warmup_steps: length of the rise, in steps; it counts towards the total.
    total_steps: length of the whole schedule, in steps.
    drops: parts of the total, between 0 and 1, at which the learning rate falls; if
      there are none, it falls as that of `warmup_cosine`.

  Returns:
    A function from the step to the learning rate.

  Raises:
    ValueError: the warm-up does not fit, or a drop is not between it and the end.
  """
  if not drops:
    return warmup_cosine(peak, warmup_steps, total_steps)
  steps = [round(part * total_steps) for part in drops]
  if not 0 <= warmup_steps < min(steps) or max(steps) >= total_steps:
    raise ValueError(
      f'drops after {", ".join(f"{x:g}" for x in drops)} of {total_steps} steps, a '
      f'warm-up of {warmup_steps}; use parts between the warm-up and 1'
    )
  boundaries = jnp.array(steps)

  def schedule(step: chex.Numeric) -> jax.Array:
    step = jnp.asarray(step, jnp.int32)
    rise = jnp.minimum(step.astype(jnp.float32) / max(warmup_steps, 1), 1.0)
    num_drops = jnp.sum(step >= boundaries).astype(jnp.float32)
    return peak * (rise if warmup_steps else 1.0) * jnp.power(0.1, num_drops)

  return schedule


def cosine(start: float, step: int, total_steps: int) -> np.float32:
  """A number on the way from `start` at step 0 to 0 at `total_steps`, as a cosine.

  Computed on the host, for a compiled step that takes its learning rate as an argument
  and so serves trainings of any length and rate.
  """
  return np.float32(start * (1 + math.cos(math.pi * step / total_steps)) / 2)


def _is_weight(params: optax.Params) -> Any:
  """Marks the leaves of the parameters that are named 'w'."""

  def marks(path: tuple[Any, ...], _: jax.Array) -> bool:
    return jax.tree_util.keystr(path[-1:], simple=True) == 'w'

  return jax.tree_util.tree_map_with_path(marks, params)


def _promoting(
  transformation: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Lets Optax raise floats to integer powers where JAX promotes types strictly."""

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    with jax.numpy_dtype_promotion('standard'):
      return transformation.update(updates, state, params)

  return optax.GradientTransformation(transformation.init, update)


def lars(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  momentum: float = 0.9,
  trust_coefficient: float = 1e-3,
) -> optax.GradientTransformation:
  r"""Layer-wise adaptive rate scaling, as used by BYOL and SSL-HSIC.

  For the weights w of a layer and their gradient g, with learning rate η,

    g ← g + λ·w,   m ← μ·m + g·τ‖w‖/‖g‖,   w ← w − η·m

  where the factor τ‖w‖/‖g‖ is 1 if either norm is 0. Other parameters take m ← μ·m + g.
  `optax.lars` differs in that η is inside of the momentum there, which is another
  method as soon as η changes with time.

  You et al. (2017), https://arxiv.org/abs/1708.03888.

  Args:
    learning_rate: η, a number or a function of the step.
    weight_decay: λ.
    momentum: μ, heavy-ball rather than Nesterov.
    trust_coefficient: τ.

  Returns:
    The gradient transformation; its update needs the parameters.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=_is_weight),
    optax.masked(
      optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), _is_weight
    ),
    optax.trace(momentum),
    optax.scale_by_learning_rate(learning_rate),
  )


def adamw(
  learning_rate: optax.ScalarOrSchedule, *, weight_decay: float
) -> optax.GradientTransformation:
  """Adam with decoupled decay of the weights (https://arxiv.org/abs/1711.05101)."""
  return _promoting(
    optax.adamw(learning_rate, weight_decay=weight_decay, mask=_is_weight)
  )


def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float = 0.9,
  nesterov: bool = False,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Gradient descent with momentum, of the evaluations; decay acts on weights only."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=_is_weight),
    optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
  )


_OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adamw': adamw,
  'lars': lars,
  'sgd': sgd,
}


def create(
  name: str, learning_rate: optax.ScalarOrSchedule, **config: Any
) -> optax.GradientTransformation:
  """Creates the optimiser 'adamw', 'lars' or 'sgd' with the arguments in `config`.

  Raises:
    ValueError: if there is no optimiser of this name.
  """
  if name not in _OPTIMISERS:
    raise ValueError(f'unknown optimiser {name!r}; use one of {sorted(_OPTIMISERS)}')
  return _OPTIMISERS[name](learning_rate, **config)


def target_decay(
  step: chex.Numeric,
  total_steps: int,
  base_decay: float = 0.99,
  schedule: str = 'cosine',
) -> jax.Array:
  """Decay of the target network at a step: 1 − (1 − base)·(cos(πk/K) + 1)/2.

  It rises from `base_decay` to 1. BYOL (https://arxiv.org/abs/2006.07733), section 3.3.

  Args:
    step: k, a number or an array.
    total_steps: K, of the whole training.
    base_decay: decay at step 0.
    schedule: 'cosine' is the above; 'constant' stays at `base_decay`, and at a decay of
      0 the target network is the online one, as in SimSiam.

  Returns:
    The decay, float32, in the shape of `step`.

  Raises:
    ValueError: there is no such schedule.
  """
  if schedule not in TARGET_SCHEDULES:
    raise ValueError(
      f'unknown target decay schedule {schedule!r}; use one of '
      f'{", ".join(TARGET_SCHEDULES)}'
    )
  progress = jnp.asarray(step, jnp.float32) / total_steps
  if schedule == 'constant':
    return jnp.full_like(progress, base_decay)
  return 1 - (1 - base_decay) * (jnp.cos(jnp.pi * progress) + 1) / 2


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
  return _promoting(optax.ema(decay, debias=True, accumulator_dtype=jnp.float32))


def averaged(state: optax.EmaState, decay: float = 0.999) -> optax.Params:
  """Reads the averaged parameters a_t / (1 − dᵗ) off the state of `weight_ema`.

  Args:
    state: after at least one update; before, there is nothing to average (0/0).
    decay: d, as given to `weight_ema`.
  """
  with jax.numpy_dtype_promotion('standard'):
    return optax.tree.bias_correction(state.ema, decay, state.count)
