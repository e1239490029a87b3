"""From a configuration to what a training step is made of, with its checks."""

import functools
from collections.abc import Callable, Iterable, Sequence

import chex
import ml_collections
import numpy as np
import optax
from absl import logging

from sslhsic import evaluators, losses, microbatches, optim, parallel
from sslhsic.data import loader, resampling, sources
from sslhsic.pretraining import initial, measurements, model, step, views
from sslhsic.runs import checks
from sslhsic.tables import printed


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
  dependence = _dependence(config)
  return step.Training(
    model=model.create(
      encoder=network.encoder,
      encoder_options=network.encoder_options,
      head=network.head,
      with_target=config.target_network,
      num_classes=num_classes(source),
      axis_name=parallel.AXIS_NAME,
      precision=settings.precision,
      gives_embeddings=bool(dependence) and dependence.features == 'embedding',
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
    dependence=dependence,
  )


def source(config: ml_collections.ConfigDict) -> sources.Source:
  """The training images, with metadata if the loss has a term of it.

  Raises:
    ValueError: there is no such data set, split or metadata.
  """
  found = sources.create(config.data.source, config.data.train_split)
  dependence = _dependence(config)
  if dependence is None:
    return found
  with measurements.errors_of('config.loss.dependence.metadata'):
    return sources.with_metadata(found, dependence.metadata)


def _dependence(config: ml_collections.ConfigDict) -> losses.DependenceTerm | None:
  """The term of the metadata, if the configuration names any."""
  with measurements.errors_of('config.loss.dependence'):
    term = losses.DependenceTerm(**config.loss.dependence)
  if not term.metadata:
    return None
  if config.training.batch_size < 4:
    raise ValueError(
      f'config.training.batch_size is {config.training.batch_size}, and '
      'config.loss.dependence needs 4 or more images'
    )
  return term


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


def check(config: ml_collections.ConfigDict, num_examples: int | None = None) -> None:
  """Checks the sizes of a configuration of pre-training, also against the devices.

  Args:
    config: the configuration.
    num_examples: training images, which have to fill a batch; None: any number.

  Raises:
    ValueError: one does not fit; names the field.
  """
  training = config.training
  for batch_size in (training.batch_size, config.evaluation.batch_size):
    parallel.per_device(batch_size)
  microbatches.check(
    parallel.per_device(training.batch_size), training.num_microbatches
  )
  if num_examples is not None:
    where = f'{config.data.source} {config.data.train_split}'
    checks.batch_fits(training.batch_size, num_examples, where)
  for name in ('interpolation', 'evaluation_interpolation'):
    resampling.check(config.data[name], f'config.data.{name}')
  checks.warmup_fits('training.warmup_epochs', training.warmup_epochs, training.epochs)
  initial.check(config.init_what)


def num_classes(source: sources.Source) -> int:
  """Classes of the monitoring classifier; 0 where images have no label, or several."""
  has_one = source.num_classes and not np.ndim(source[0]['label'])
  return source.num_classes if has_one else 0


def check_minima(
  config: ml_collections.ConfigDict,
  of_step: step.Training,
  evaluated: Iterable[str],
  source: sources.Source,
) -> None:
  """Checks the names that the run watches for collapse; warns if one is not measured.

  Args:
    config: the configuration of a pre-training.
    of_step: what a step is made of.
    evaluated: names of the results of the evaluators.
    source: the training images.

  Raises:
    ValueError: `config.runner.collapse.minima` has a name that nothing measures.
  """
  measured = {*evaluated} | step.scalar_names(
    of_step,
    batch_size=parallel.per_device(config.training.batch_size),
    feature_size=config.network.head.output_size,
    num_classes=num_classes(source),
  )
  # Evaluators that could measure a name, also those that the run leaves out.
  makers = {
    result: name
    for name in evaluators.EVALUATORS
    for result in evaluators.create(name).describe()
  }
  for name in sorted(set(config.runner.collapse.minima) - measured):
    if name not in makers:
      raise ValueError(
        f'config.runner.collapse.minima has {name}, which nothing measures; watch one '
        f'of {", ".join(sorted(measured | makers.keys()))}'
      )
    logging.warning(
      'collapse is not watched by %s, which is not measured: add %r to '
      'config.evaluators.names to do so',
      name,
      makers[name],
    )


def describe(config: ml_collections.ConfigDict, num_examples: int) -> str:
  """The training in words, for the first line of a run.

  Args:
    config: the configuration of a pre-training.
    num_examples: number of training images.
  """
  training, base = config.training, config.optimizer.base_learning_rate
  peak = optim.scaled_learning_rate(base, training.batch_size)
  count = training.num_microbatches
  return (
    f'{config.loss.name} {"with" if config.target_network else "without"} target '
    f'network, {config.network.encoder} on {config.data.source}: {num_examples:,} '
    f'images, {num_steps(config, num_examples):,} steps of {training.batch_size} '
    f'images {f"in {count} microbatches " if count > 1 else ""}on '
    f'{printed.count(len(parallel.devices()), "device")} in {training.precision}, '
    f'learning rate {peak:g} = {base:g}·{training.batch_size}/256'
  )


def batches(
  config: ml_collections.ConfigDict,
  of_views: Sequence[views.View],
  source: sources.Source,
) -> loader.Stream:
  """The batches of a training, from their start; arguments as for `training`."""
  data = config.data
  return loader.views(
    source,
    batch_size=config.training.batch_size,
    seed=config.seed,
    crops=[view.crop(data.crop_size, data.interpolation) for view in of_views],
    num_workers=data.num_workers,
    max_bad_fraction=data.max_bad_fraction,
    max_pixels=data.max_pixels,
    num_channels=len(data.mean),
  )


def num_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
  """Length of the training: whole batches in all epochs."""
  return config.training.epochs * num_examples // config.training.batch_size
