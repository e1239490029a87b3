"""Pre-trains an image encoder with a self-supervised loss.

python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR
"""

import functools
import pathlib
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import optax

from sslhsic import augment, losses, optim, parallel
from sslhsic.data import loader, sources
from sslhsic.evaluation import (
  dependence,
  diagnostics,
  encoder,
  features,
  figures,
  representations,
)
from sslhsic.networks import branches
from sslhsic.training import microbatches, runner


class State(NamedTuple):
  """All that training changes.

  Attributes:
    params: of the online network.
    network_state: batch statistics of the online network.
    target_params: of the target network, or None.
    target_state: batch statistics of the target network, or None.
    loss_params: of the loss.
    opt_state: of the optimiser of `params`.
    loss_opt_state: of the optimiser of `loss_params`.
    average: of `params` over training, for evaluation.
  """

  params: hk.Params
  network_state: hk.State
  target_params: hk.Params | None
  target_state: hk.State | None
  loss_params: chex.ArrayTree
  opt_state: optax.OptState
  loss_opt_state: optax.OptState
  average: optax.EmaState


class Features(NamedTuple):
  """What the online network gives the losses, of n images.

  Attributes:
    views: [n, d] of view 1 and of view 2; predictions with a target network, else
      projections.
    projection: [n, d] of view 1.
    logits: [n, num_classes] of view 1, or None.
  """

  views: list[chex.Array]
  projection: chex.Array
  logits: chex.Array | None


class Pretrain:
  """The experiment; see `sslhsic.training.experiment` for the contract."""

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state'}
  NON_BROADCAST_CHECKPOINT_ATTRS: ClassVar = {'input_state': 'input_state'}

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    data = config.data
    self.batch_size = config.training.batch_size
    for batch_size in (self.batch_size, config.evaluation.batch_size):
      parallel.per_device(batch_size)
    microbatches.check(
      parallel.per_device(self.batch_size), config.training.num_microbatches
    )
    self._config = config
    self._train_source = sources.create(data.source, data.train_split)
    self._evaluation_sources = [
      sources.create(data.source, config.evaluation[split])
      for split in ('train_split', 'test_split')
    ]
    self.num_steps = num_steps(config, len(self._train_source))
    self._build_networks()
    self._build_optimizers()
    self._policies = [
      augment.create(name, mean=data.mean, std=data.std, **config.augment.options)
      for name in config.augment.views
    ]
    self._prepare = encoder.preparation(data.mean, data.std)
    self._pmapped_step = parallel.pmap(
      self._step,
      in_axes=(0, 0, None, None, None),
      out_axes=(0, None),
      donate_argnums=(0,),
    )
    self._embed = parallel.pmap(self._embed_images)
    self._init_rng = init_rng
    # An argument of the step, so that all seeds have one compiled program.
    self._seed_key = jax.random.key(config.seed)
    self.state = self._initial_state()
    self._input = self._build_input() if mode == 'train' else None

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    config, optimizer, training = (
      self._config,
      self._config.optimizer,
      self._config.training,
    )
    count = training.num_microbatches
    peak = optim.scaled_learning_rate(optimizer.base_learning_rate, self.batch_size)
    return (
      f'{config.loss.name} {"with" if self._target else "without"} target network, '
      f'{config.network.encoder} on {config.data.source}: '
      f'{len(self._train_source):,} images, {self.num_steps:,} steps of '
      f'{self.batch_size} images {f"in {count} microbatches " if count > 1 else ""}on '
      f'{len(parallel.devices())} device(s) in {training.precision}, learning rate '
      f'{peak:g} = {optimizer.base_learning_rate:g}·{self.batch_size}/256'
      f'{self._unmeasured}'
    )

  @property
  def _unmeasured(self) -> str:
    """What is left out for lack of labels, as the end of a sentence."""
    needs = {
      'online classifier': self._train_source.num_classes,
      'kNN and comparison of representations': self._is_comparable,
    }
    missing = [name for name, has_labels in needs.items() if not has_labels]
    return f'; no {" and no ".join(missing)}, for lack of labels' if missing else ''

  # Building

  def _build_networks(self) -> None:
    network = self._config.network
    shared = {
      'encoder': network.encoder,
      'encoder_options': network.encoder_options,
      'head': network.head,
      'axis_name': parallel.AXIS_NAME,
      'precision': self._config.training.precision,
    }
    self._online = branches.online(
      **shared,
      with_predictor=self._config.target_network,
      num_classes=self._train_source.num_classes,
    )
    self._target = branches.target(**shared) if self._config.target_network else None
    loss = self._config.loss
    self._loss = losses.create(loss.name, **loss.get(loss.name, {}))
    if self._loss.needs_target and not self._target:
      raise ValueError(
        f'the loss {loss.name} needs a target network; use config.target_network = True'
      )

  def _build_optimizers(self) -> None:
    optimizer, training = self._config.optimizer, self._config.training
    steps_per_epoch = len(self._train_source) / self.batch_size
    peak = optim.scaled_learning_rate(optimizer.base_learning_rate, self.batch_size)
    self._schedule = optim.warmup_cosine(
      peak, int(training.warmup_epochs * steps_per_epoch), self.num_steps
    )
    self._optimizer = optim.create(
      optimizer.name, self._schedule, weight_decay=optimizer.weight_decay
    )
    self._loss_optimizer = optim.create(
      'adamw', self._config.loss.learning_rate, weight_decay=0.0
    )
    self._average = optim.weight_ema(self._config.weight_ema_decay)
    self._target_decay = functools.partial(
      optim.target_decay,
      total_steps=self.num_steps,
      base_decay=self._config.target_base_decay,
      schedule=self._config.target_decay_schedule,
    )
    self._target_decay(0)  # Refuses a schedule that there is not, now.

  def _build_input(self) -> loader.DeviceIterator:
    data = self._config.data
    batches = loader.two_views(
      self._train_source,
      batch_size=self.batch_size,
      seed=self._config.seed,
      crop=loader.random_crop(data.crop_size) if data.crop_size else loader.whole_image,
      num_workers=data.num_workers,
      max_bad_fraction=data.max_bad_fraction,
    )
    return loader.DeviceIterator(batches)

  def _initial_state(self) -> State:
    keys = parallel.replicate(self._init_rng)
    shape = (1, *loader.image_shape(self._train_source, self._evaluation_crop))
    return parallel.pmap(lambda rng: self._init(rng, jnp.zeros(shape)))(keys)

  def _init(self, rng: chex.PRNGKey, images: chex.Array) -> State:
    online_rng, target_rng, loss_rng = jax.random.split(rng, 3)
    params, network_state = self._online.init(online_rng, images, True)
    target_params, target_state = None, None
    if self._target:
      target_params, target_state = self._target.init(target_rng, images, True)
    loss_params = self._loss.init(loss_rng)
    return State(
      params=params,
      network_state=network_state,
      target_params=target_params,
      target_state=target_state,
      loss_params=loss_params,
      opt_state=self._optimizer.init(params),
      loss_opt_state=self._loss_optimizer.init(loss_params),
      average=self._average.init(params),
    )

  # Training

  def step(self, global_step: int, rng: chex.PRNGKey) -> dict[str, chex.Array]:
    """One update of everything in `state`."""
    batch = next(self._input)
    self.state, scalars = self._pmapped_step(
      self.state, batch, rng, self._seed_key, jnp.int32(global_step)
    )
    return scalars

  def compile(self, rng: chex.PRNGKey) -> jax.stages.Compiled:
    """Compiles the step before it is taken, to look at it; takes a batch of the input.

    Args:
      rng: a key like those that `step` is given.
    """
    batch = next(self._input)
    lowered = self._pmapped_step.lower(
      self.state, batch, rng, self._seed_key, jnp.int32(0)
    )
    self._pmapped_step = lowered.compile()
    return self._pmapped_step

  def _step(
    self,
    state: State,
    batch: dict[str, chex.Array],
    rng: chex.PRNGKey,
    seed_key: chex.PRNGKey,
    global_step: chex.Array,
  ) -> tuple[State, dict[str, chex.Array]]:
    """The train step on one device."""
    (gradients, loss_gradients), network_state, target_state, scalars = self.gradients(
      state, batch, rng, seed_key
    )
    updates, opt_state = self._optimizer.update(
      gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    loss_updates, loss_opt_state = self._loss_optimizer.update(
      loss_gradients, state.loss_opt_state, state.loss_params
    )
    target_params, target_scalars = self._update_target(
      state.target_params, params, global_step
    )
    _, average = self._average.update(params, state.average)
    scalars |= target_scalars | {
      'learning_rate': self._schedule(global_step),
      'gradient_norm': optax.tree.norm(gradients),
    }
    state = State(
      params=params,
      network_state=network_state,
      target_params=target_params,
      target_state=target_state,
      loss_params=optax.apply_updates(state.loss_params, loss_updates),
      opt_state=opt_state,
      loss_opt_state=loss_opt_state,
      average=average,
    )
    return state, scalars

  def gradients(
    self,
    state: State,
    batch: dict[str, chex.Array],
    rng: chex.PRNGKey,
    seed_key: chex.PRNGKey,
  ):
    """Gradients by `params` and `loss_params`, new batch statistics, scalars."""
    views = microbatches.apply(
      functools.partial(self._augment, seed_key),
      microbatches.split(batch, self._config.training.num_microbatches),
    )
    online, network_state, pullback = microbatches.features_and_pullback(
      self._online_features, state.params, state.network_state, views
    )
    target, target_state = None, None
    if self._target:
      target, target_state = microbatches.features(
        self._target_features, state.target_params, state.target_state, views
      )
    grad_fn = jax.grad(self._total_loss, argnums=(0, 1), has_aux=True)
    (by_features, loss_gradients), scalars = grad_fn(
      online, state.loss_params, target, batch['label'], rng
    )
    gradients, scalars = parallel.pmean(
      ((pullback(by_features), loss_gradients), scalars)
    )
    return gradients, network_state, target_state, scalars

  def _augment(
    self, seed_key: chex.PRNGKey, batch: dict[str, chex.Array]
  ) -> list[chex.Array]:
    return [
      policy(augment.keys(seed_key, batch['index'], view), batch[f'view{view + 1}'])
      for view, policy in enumerate(self._policies)
    ]

  def _online_features(
    self, params: hk.Params, network_state: hk.State, views: list[chex.Array]
  ) -> tuple[Features, hk.State]:
    outputs, network_state = _forward(self._online, params, network_state, views)
    compared = [
      out.projection if out.prediction is None else out.prediction for out in outputs
    ]
    return Features(compared, outputs[0].projection, outputs[0].logits), network_state

  def _target_features(
    self, params: hk.Params, network_state: hk.State, views: list[chex.Array]
  ) -> tuple[list[chex.Array], hk.State]:
    outputs, network_state = _forward(self._target, params, network_state, views)
    return [out.projection for out in outputs], network_state

  def _total_loss(
    self,
    online: Features,
    loss_params: chex.ArrayTree,
    target: list[chex.Array] | None,
    labels: chex.Array,
    rng: chex.PRNGKey,
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss and, on stopped gradients, that of the monitoring classifier."""
    projections = losses.Projections(
      jnp.stack(online.views), None if target is None else jnp.stack(target)
    )
    unit_norm = jax.tree.map(losses.l2_normalize, projections)
    loss, scalars = self._loss(
      loss_params,
      rng,
      unit_norm if self._loss.unit_norm else projections,
      parallel.AXIS_NAME,
    )
    if self._config.instruments:
      scalars |= dependence.measure(
        jax.lax.stop_gradient(unit_norm.views),
        self._loss.kernel_of(loss_params),
        parallel.AXIS_NAME,
      )
    classifier_loss, classifier_scalars = _classify(online.logits, labels)
    scalars |= classifier_scalars | {
      'projection_std': diagnostics.feature_std(
        jax.lax.stop_gradient(online.projection), parallel.AXIS_NAME
      ),
    }
    return loss + classifier_loss, scalars

  def _update_target(
    self, target_params: hk.Params | None, params: hk.Params, global_step: chex.Array
  ) -> tuple[hk.Params | None, dict[str, chex.Array]]:
    """Moves the target network towards the updated online network."""
    if target_params is None:
      return None, {}
    decay = self._target_decay(global_step)
    followed = {name: params[name] for name in target_params}
    return optim.ema_update(target_params, followed, decay), {'target_decay': decay}

  # Input state, for the checkpoint

  @property
  def input_state(self) -> dict[str, Any]:
    """Where the input is in its stream."""
    return self._input.state

  @input_state.setter
  def input_state(self, value: dict[str, Any]) -> None:
    if self._input:
      self._input.restore(value)

  def describe_batch(self, global_step: int) -> dict[str, list]:
    """What a step has seen; see `loader.Stream.describe`."""
    return self._input.describe(global_step)

  @property
  def data_wait_s(self) -> float:
    """Seconds that steps have waited for data."""
    return self._input.wait_s

  # Evaluation

  def evaluate(self, global_step: int, rng: chex.PRNGKey) -> dict[str, float]:
    """Collapse measures and, of what has labels, kNN and online classifier.

    All with the averaged parameters.
    """
    del global_step, rng  # Nothing is random.
    network = self._averaged_network()
    train_source, test_source = self._evaluation_sources
    test, logits = self._features(test_source, *network)
    scalars = {}
    if self._is_comparable:
      train, _ = self._features(train_source, *network)
      scalars['knn_top1'] = representations.knn_top1(
        train,
        test,
        num_classes=train_source.num_classes,
        protocol=self._protocol,
      )
    if logits is not None and test_source.num_classes:
      scalars['online_top1'] = (logits.argmax(axis=1) == test.labels).mean()
    return scalars | {
      'embedding_std': diagnostics.feature_std(test.features),
      'effective_rank': diagnostics.effective_rank(test.features),
    }

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """Compares pixels, the untrained and the trained encoder, as configured."""
    del global_step
    evaluation = self._config.evaluation
    measured = self._protocol.describe() if self._is_comparable else {}
    results = {
      'protocol': measured
      | {
        'data': f'{self._config.data.source}: train is {evaluation.train_split}, test '
        f'is {evaluation.test_split}',
        'features': 'embedding of the encoder in evaluation mode, its parameters '
        f'averaged over training (decay {self._config.weight_ema_decay})',
      }
    }
    if self._input:
      results['skipped_images'] = self._input.num_bad_images
    if not (evaluation.compare_representations and self._is_comparable):
      return results
    compared = {
      'pixels': [
        representations.pixels(self._one_pass(source))
        for source in self._evaluation_sources
      ],
      'untrained': self._embeddings(self._untrained_network()),
      'trained': self._embeddings(self._averaged_network()),
    }
    maps = {name: test.features for name, (_, test) in compared.items()}
    labels = compared['pixels'][1].labels
    figures.embedding_maps(maps, labels, directory / 'embeddings.png')
    comparison = representations.compare(
      compared,
      num_classes=self._evaluation_sources[0].num_classes,
      protocol=self._protocol,
    )
    print(representations.table(comparison))
    return results | comparison

  @property
  def _is_comparable(self) -> bool:
    """Whether there are labels to measure representations by."""
    return all(source.num_classes for source in self._evaluation_sources)

  @property
  def _protocol(self) -> representations.Protocol:
    return representations.Protocol(**self._config.evaluation.protocol)

  def _averaged_network(self) -> tuple[hk.Params, hk.State]:
    decay = self._config.weight_ema_decay
    average = parallel.pmap(lambda ema: optim.averaged(ema, decay))
    return average(self.state.average), self.state.network_state

  def _untrained_network(self) -> tuple[hk.Params, hk.State]:
    """The initial parameters, with batch statistics of some training images."""
    state = self._initial_state()
    batch = next(self._one_pass(self._train_source))
    return state.params, encoder.calibrated(
      self._online, state.params, state.network_state, self._prepare, batch
    )

  def _embeddings(self, network):
    return [self._features(source, *network)[0] for source in self._evaluation_sources]

  def _features(self, source, params, network_state):
    """Embeddings with their labels, and the classifier's logits, of a whole source."""
    outputs, labels = features.extract(
      lambda batch: self._embed(params, network_state, batch['image']),
      self._one_pass(source),
    )
    return representations.Split(outputs.embedding, labels), outputs.logits

  def _one_pass(self, source):
    return loader.one_pass(
      source,
      batch_size=self._config.evaluation.batch_size,
      crop=self._evaluation_crop,
      max_bad_fraction=self._config.data.max_bad_fraction,
    )

  @property
  def _evaluation_crop(self) -> loader.Crop:
    size = self._config.data.crop_size
    return loader.centre_crop(size) if size else loader.whole_image

  def _embed_images(self, params, network_state, images):
    outputs, _ = self._online.apply(
      params, network_state, None, self._prepare(images), False
    )
    return outputs


def _forward(network, params, network_state, views):
  """A pass for each view, so that batch statistics are those of one view."""
  outputs = []
  for images in views:
    output, network_state = network.apply(params, network_state, None, images, True)
    outputs.append(output)
  return outputs, network_state


def _classify(logits: chex.Array | None, labels: chex.Array):
  """Loss and scalars of the monitoring classifier; images without label add zero."""
  if logits is None:  # No image has a label.
    return 0.0, {}
  logits = logits.astype(jnp.float32)
  losses_of_all = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  loss = jnp.mean(jnp.where(labels >= 0, losses_of_all, 0.0))
  top1 = jnp.mean(logits.argmax(axis=1) == labels)
  return loss, {'classifier_loss': loss, 'classifier_top1': top1}


def num_steps(config: ml_collections.ConfigDict, num_examples: int) -> int:
  """Length of the training: whole batches in all epochs."""
  return config.training.epochs * num_examples // config.training.batch_size


if __name__ == '__main__':
  runner.main(Pretrain)
