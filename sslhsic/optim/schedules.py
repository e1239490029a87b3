"""Schedules: learning rate, and decay of the target network, by step."""

import math
from collections.abc import Sequence

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
    # `max` avoids a division by 0 without a warm-up, where the rise has no use.
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
