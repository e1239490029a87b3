"""Optimisers, schedules and moving averages, composed from Optax."""

from sslhsic.optim.averages import averaged, ema_update, weight_ema
from sslhsic.optim.optimizers import (
  OPTIMIZERS,
  adamw,
  create,
  describe,
  lars,
  matching,
  settings,
  sgd,
)
from sslhsic.optim.schedules import (
  TARGET_SCHEDULES,
  cosine,
  scaled_learning_rate,
  target_decay,
  warmup_cosine,
  warmup_drops,
)

__all__ = [
  'OPTIMIZERS',
  'TARGET_SCHEDULES',
  'adamw',
  'averaged',
  'cosine',
  'create',
  'describe',
  'ema_update',
  'lars',
  'matching',
  'scaled_learning_rate',
  'settings',
  'sgd',
  'target_decay',
  'warmup_cosine',
  'warmup_drops',
  'weight_ema',
]
