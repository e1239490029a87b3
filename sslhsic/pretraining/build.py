"""From a configuration to what a training step is made of."""

import functools
from collections.abc import Sequence

import ml_collections

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
    ValueError: a setting has an unknown value, or the loss needs a target network.
  """
  optimizer, network, settings = config.optimizer, config.network, config.training
  loss = losses.create(config.loss.name, **config.loss.get(config.loss.name, {}))
  if loss.needs_target and not config.target_network:
    raise ValueError(
      f'the loss {config.loss.name} needs a target network; use config.target_network '
      '= True'
    )
  total_steps = num_steps(config, len(source))
  steps_per_epoch = len(source) / settings.batch_size
  schedule = optim.warmup_cosine(
    optim.scaled_learning_rate(optimizer.base_learning_rate, settings.batch_size),
    int(settings.warmup_epochs * steps_per_epoch),
    total_steps,
  )
  target_decay = functools.partial(
    optim.target_decay,
    total_steps=total_steps,
    base_decay=config.target_base_decay,
    schedule=config.target_decay_schedule,
  )
  target_decay(0)  # An unknown schedule raises an error now.
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
    num_global_views=sum(view.is_global for view in of_views),
    loss=loss,
    optimizer=optim.create(
      optimizer.name, schedule, weight_decay=optimizer.weight_decay
    ),
    loss_optimizer=optim.create('adamw', config.loss.learning_rate, weight_decay=0.0),
    schedule=schedule,
    target_decay=target_decay,
    average=optim.weight_ema(config.weight_ema_decay),
    num_microbatches=settings.num_microbatches,
    with_instruments=config.instruments,
  )


def num_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
  """Length of the training: whole batches in all epochs."""
  return config.training.epochs * num_examples // config.training.batch_size
