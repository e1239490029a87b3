"""From a configuration to what a training step is made of."""

import functools
from collections.abc import Callable, Sequence

import chex
import ml_collections
import optax

from sslhsic import losses, optim, parallel
from sslhsic.data import sources
from sslhsic.pretraining import model, step, views


def training(
  config: ml_collections.ConfigDict,
  of_views: Sequence[views.View],
  source: sources.Source,
) -> step.Training:
  """What a step of a configuration is made of.

  Args:
    config: the configuration of a pre-training.
    of_views: its views, parsed.
    source: the training images.

  Raises:
    ValueError: a setting has an unknown value, the loss needs a target network, or it
      does not take the batches.
  """
  network, settings = config.network, config.training
  num_global_views = sum(view.is_global for view in of_views)
  schedule = _schedule(config, len(source))
  return step.Training(
    model=model.create(
      encoder=network.encoder,
      encoder_options=network.encoder_options,
      head=network.head,
      with_target=config.target_network,
      num_classes=source.num_classes,
      axis_name=parallel.AXIS_NAME,
      precision=settings.precision,
    ),
    policies=views.policies(
      of_views, mean=config.data.mean, std=config.data.std, **config.augment.options
    ),
    num_global_views=num_global_views,
    loss=_loss(config, num_global_views),
    optimizer=optim.create(config.optimizer, schedule),
    loss_optimizer=optim.create(
      config.loss.optimizer,
      config.loss.optimizer.learning_rate,
      field='config.loss.optimizer',
    ),
    schedule=schedule,
    target_decay=_target_decay(config, len(source)),
    average=optim.weight_ema(config.weight_ema_decay),
    num_microbatches=settings.num_microbatches,
    with_instruments=config.instruments,
  )


def _loss(config: ml_collections.ConfigDict, num_global_views: int) -> losses.Loss:
  name, batch_size = config.loss.name, config.training.batch_size
  loss = losses.create(name, **config.loss.get(name, {}))
  if loss.needs_target and not config.target_network:
    raise ValueError(
      f'the loss {name} needs a target network; use config.target_network = True'
    )
  loss.check_batch(
    local_batch=parallel.per_device(batch_size),
    batch_size=batch_size,
    num_targets=num_global_views if config.target_network else 0,
  )
  return loss


def _schedule(config: ml_collections.ConfigDict, num_examples: int) -> optax.Schedule:
  """The learning rate by step."""
  batch_size = config.training.batch_size
  return optim.warmup_cosine(
    optim.scaled_learning_rate(config.optimizer.base_learning_rate, batch_size),
    int(config.training.warmup_epochs * (num_examples / batch_size)),
    num_steps(config, num_examples),
  )


def _target_decay(
  config: ml_collections.ConfigDict, num_examples: int
) -> Callable[[chex.Numeric], chex.Array]:
  """The decay of the target network by step."""
  target_decay = functools.partial(
    optim.target_decay,
    total_steps=num_steps(config, num_examples),
    base_decay=config.target_base_decay,
    schedule=config.target_decay_schedule,
  )
  target_decay(0)  # An unknown schedule raises an error now.
  return target_decay


def num_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
  """Length of the training: whole batches in all epochs."""
  return config.training.epochs * num_examples // config.training.batch_size
