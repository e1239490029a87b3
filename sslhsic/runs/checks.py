"""Checks of settings by the names of their fields, before anything is computed."""

from collections.abc import Iterator
from typing import Any

import ml_collections

_MAX_SEED = 2**32 - 1  # JAX's keys have 32 bits of it.

# The least value of each field, where a configuration has it.
_MINIMA = {
  'seed': 0,
  'data.crop_size': 0,
  'data.num_workers': 0,
  'data.max_bad_fraction': 0,
  'network.head.hidden_size': 1,
  'network.head.output_size': 1,
  'training.batch_size': 1,
  'training.epochs': 1,
  'training.steps': 1,
  'training.warmup_epochs': 0,
  'training.warmup_steps': 0,
  'training.num_microbatches': 1,
  'evaluation.batch_size': 1,
  'protocol.k': 1,
  'protocol.num_draws': 1,
  'protocol.labels_per_class': 1,
  'runner.log_every': 0,
  'runner.evaluate_every': 0,
  'runner.checkpoint_every': 0,
  'runner.checkpoint_minutes': 0,
  'runner.keep_checkpoints': 1,
}


def sizes(config: ml_collections.ConfigDict) -> None:
  """Checks every size, length and seed that all programs name alike.

  A field that is a sequence has all its elements checked; None is left out.

  Raises:
    ValueError: one is too small, or the seed too large.
  """
  for field, least in _MINIMA.items():
    for value in _values(config, field):
      if value < least:
        raise ValueError(f'config.{field} is {value}; use {least} or more')
  for value in _values(config, 'seed'):
    if value > _MAX_SEED:
      raise ValueError(f'config.seed is {value}; use {_MAX_SEED} or less')


def _values(config: ml_collections.ConfigDict, field: str) -> Iterator[float]:
  value: Any = config
  for name in field.split('.'):
    # A program without this section, or with None in its place, has no such field.
    if not isinstance(value, ml_collections.ConfigDict):
      return
    value = value.get(name)
  values = value if isinstance(value, tuple | list) else [value]
  yield from (x for x in values if isinstance(x, int | float))


def batch_fits(batch_size: int, num_examples: int, where: str) -> None:
  """Checks that a batch of a training holds no image twice.

  Args:
    batch_size: `config.training.batch_size`.
    num_examples: of the training images.
    where: which images they are, in words.

  Raises:
    ValueError: there are fewer images than that.
  """
  if num_examples < batch_size:
    raise ValueError(
      f'config.training.batch_size is {batch_size}, but {where} has {num_examples} '
      'images; use smaller batches or more images'
    )


def warmup_fits(field: str, warmup: float, total: float) -> None:
  """Checks that a warm-up is shorter than the training.

  Args:
    field: that gives the warm-up, such as training.warmup_steps.
    warmup: its length.
    total: length of the training, in the same unit.

  Raises:
    ValueError: it is not.
  """
  if warmup >= total:
    raise ValueError(
      f'config.{field} is {warmup}, but the training takes {total}; use a shorter '
      'warm-up'
    )
