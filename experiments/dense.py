"""The experiment of the dense tasks: an encoder trained with a head, and evaluated."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import shared, trainings
from sslhsic import augment, microbatches, networks, optim, parallel, storage
from sslhsic.data import compared, loader, reading, sources
from sslhsic.evaluation import encoder, features
from sslhsic.networks import classifier
from sslhsic.plots import sheets
from sslhsic.runs import parts
from sslhsic.tables import printed
from sslhsic.tasks.task import Batch, Scores, Task
from sslhsic.weights import pretrained

CreateTask = Callable[[ml_collections.ConfigDict, sources.Source], Task]

_NUM_SHOWN = 6  # On the sheet of examples.


class DenseExperiment(trainings.SeveralTrainings):
  """The experiment of a task; see `sslhsic.runs.experiment` for the contract.

  There is a training for every learning rate; if there are several, the best of them is
  chosen on the validation split, and if so configured trained again with these examples
  too. The test split is evaluated once, at the end.

  Attributes:
    create_task: gives the task of a configuration and its training source.
    task: what is learned, and how it is scored.
    state: all that a step changes, replicated over the devices.
    best: of several trainings, the network of the best one so far, or of the last one.
  """

  create_task: ClassVar[CreateTask]

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    del init_rng, mode  # The seed is that of the configuration; batches come on demand.
    data, training = config.data, config.training
    parallel.per_device(config.evaluation.batch_size)
    shared.check_microbatches(config)
    self._config = config
    self.batch_size = training.batch_size
    self._rates = tuple(training.learning_rates)
    names = [name for name in shared.PARTS if data[name].source]
    made = compared.create(
      *(data[name] for name in names),
      allow_overlap=data.allow_overlap,
      need_labels=False,
    )
    self._sources = dict(zip(names, made, strict=True))
    self.data_sets = {
      f'data.{name}.source': source for name, source in self._sources.items()
    }
    _check_choice(config)
    self.task = self.create_task(config, self._sources['train'])
    # A missing annotation is an error now, not after hours of training.
    for source in self._sources.values():
      for kind in self.task.kinds:
        sources.annotations(source, kind)
    if config.retrain:
      self._sources[trainings.FINAL] = sources.ConcatenatedSource(
        self._sources['train'], self._sources['validation']
      )
    self._groups = {
      name: self.task.groups(source) for name, source in self._sources.items()
    }
    self._trainings = trainings.Trainings(
      [training.steps] * len(self._rates),
      retrain=config.retrain,
      open_input=self._open_input,
    )
    self.num_steps = self._trainings.num_steps
    self._policy = augment.create(config.augment.policy, mean=data.mean, std=data.std)
    self._prepare = encoder.preparation(data.mean, data.std)
    # Its steps are multiplied by the learning rate of the training.
    self._schedule = optim.warmup_drops(
      1.0, training.warmup_steps, training.steps, training.drops
    )
    self._optimizer = optim.create(config.optimizer, self._schedule)
    # Of several learning rates one may diverge; the others go on.
    self._pmapped_steps = {
      trainings.TRAIN: self._mapped_step(may_diverge=len(self._rates) > 1),
      trainings.FINAL: self._mapped_step(may_diverge=False),
    }
    self._pmapped_predict = parallel.pmap(self._predict)
    self._start = self._load()
    self.state = self._initial_state()
    # Of the instance: only a run of several trainings saves `best`.
    self.CHECKPOINT_ATTRS = {'state': 'state'}
    if self._is_grid:
      # Never donated: the first training begins with a state of its own.
      self.best = self.state.network
      self.CHECKPOINT_ATTRS['best'] = 'best'

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    config, training = self._config, self._config.training
    rates = ', '.join(f'{rate:g}' for rate in self._rates)
    last = ' and one more on train and validation' * bool(config.retrain)
    return (
      f'{self.task.name} with {config.network.encoder} ({self._start.description}), '
      f'{self._what_is_trained()}, on {config.data.train.source}: '
      f'{len(self._sources["train"]):,} images, '
      f'{printed.count(len(self._rates), "training")}{last}, '
      f'each of {training.steps:,} steps of {self.batch_size} images on '
      f'{printed.count(len(parallel.devices()), "device")} in {training.precision}, '
      f'learning rate {rates}'
    )

  # Building

  def _load(self) -> pretrained.Start:
    config = self._config
    if config.training.freeze_batch_norm and not self._has_statistics:
      raise ValueError(
        f'{config.network.encoder} has no batch norm to freeze; set '
        'config.training.freeze_batch_norm = False'
      )
    test = self._sources['test']
    data = config.data
    example, _ = reading.first_decodable(
      test, range(len(test)), data.max_pixels, len(data.mean)
    )
    image = self.task.test_example(np.random.default_rng(0), example)['image']
    initial = encoder.initial_values(self.task.network, image.shape, config.seed)
    return pretrained.load(
      config.init_from,
      *initial,
      encoder=config.network.encoder,
      encoder_options=config.network.encoder_options,
      mean=config.data.mean,
      std=config.data.std,
    )

  @property
  def _has_statistics(self) -> bool:
    return networks.class_of(self._config.network.encoder).has_batch_statistics

  def _initial_state(self) -> trainings.State:
    config = self._config
    params, network_state = self._start.params, self._start.network_state
    _, trained = self._split(params)
    opt_state = self._optimizer.init(trained)
    network = trainings.Network(params, network_state)
    state = parallel.replicate(trainings.State(network, opt_state, np.bool_(False)))
    keeps = config.training.freeze_batch_norm or not config.training.train_encoder
    if config.init_from == pretrained.RANDOM and keeps and self._has_statistics:
      state = state._replace(network=self._calibrated(state.network))
    return state

  def _calibrated(self, network: trainings.Network) -> trainings.Network:
    """A random encoder with the batch statistics of the first batch, which it keeps."""
    plain = classifier.encoder(
      encoder=self._config.network.encoder,
      encoder_options=self._config.network.encoder_options,
      axis_name=parallel.AXIS_NAME,
    )

    def update(network: trainings.Network, batch: Batch) -> trainings.Network:
      # Padded images come with 'size'; padding must not enter the statistics.
      content = batch['size'].astype(jnp.int32) if 'size' in batch else None
      images = self._prepare(batch['image'])
      _, state = plain.apply(*network, None, images, True, content)
      return network._replace(network_state=state)

    batch = next(self._one_pass('train'))
    return parallel.pmap(update)(network, parallel.shard(batch))

  def _split(self, params: hk.Params) -> tuple[hk.Params, hk.Params]:
    """The parameters that stay as they are, and those that are trained."""
    training, head = self._config.training, self.task.head_of_encoder
    is_norm = networks.class_of(self._config.network.encoder).is_normalisation

    def stays(module: str, *_) -> bool:
      is_head = any(name in module for name in head)
      frozen = not (training.train_encoder or is_head)
      frozen |= training.freeze_batch_norm and is_norm(module)
      # Whatever is outside the encoder belongs to the head, and is trained.
      return frozen and classifier.is_of_encoder(module)

    return hk.data_structures.partition(stays, params)

  def _open_input(self, name: str) -> loader.DeviceIterator:
    data = self._config.data
    return loader.DeviceIterator(
      loader.Stream(
        self._sources[name],
        make=self.task.training_example,
        batch_size=self.batch_size,
        seed=self._config.seed,
        num_workers=data.num_workers,
        max_bad_fraction=data.max_bad_fraction,
        max_pixels=data.max_pixels,
        num_channels=len(data.mean),
        groups=self._groups[name],
      )
    )

  # Training

  def step(self, global_step: int, rng: np.ndarray) -> dict[str, chex.Array]:
    """One update; with the last one of a training, its validation."""
    del rng  # What is random is decided by the index of an image.
    training, step = self._trainings.locate(global_step)
    if self._trainings.enter(global_step) and self._is_grid:
      # Every training of the grid starts from the same values.
      self.state = self._initial_state()
    rate = np.float32(self._rates[self._trainings.setting(training)])
    self.state, scalars = self._pmapped_steps[self._trainings.name(training)](
      self.state, self._trainings.next_batch(), np.int32(step), rate
    )
    if self._is_grid:
      scalars |= {'training': training}
      if self._trainings.is_last_step(global_step):
        scalars |= self._finish(training)
    return scalars

  @property
  def _is_grid(self) -> bool:
    """Whether there are several trainings."""
    return len(self._rates) > 1 or self._config.retrain

  def _mapped_step(self, *, may_diverge: bool) -> Callable[..., Any]:
    """`_step` on all devices."""
    return parallel.pmap(
      functools.partial(self._step, may_diverge=may_diverge),
      in_axes=(0, 0, None, None),
      out_axes=(0, None),
      donate_argnums=(0,),
    )

  def _step(
    self,
    state: trainings.State,
    batch: Batch,
    step: chex.Array,
    rate: chex.Array,
    *,
    may_diverge: bool,
  ) -> tuple[trainings.State, dict[str, chex.Array]]:
    """The train step on one device."""
    params, network_state = state.network
    frozen, trained = self._split(params)

    # Differentiated by the trained part alone; the frozen part is a constant.
    def outputs(trained: hk.Params, network_state: hk.State, batch: Batch):
      params = hk.data_structures.merge(frozen, trained)
      images = self._policy(self._keys(batch, 0), batch['image'])
      keys = self._keys(batch, 1)
      return self.task.outputs(params, network_state, images, batch, keys)

    def loss(outputs: chex.ArrayTree):
      value, scalars = self.task.loss(outputs, batch)
      return value, scalars | {'loss': value}

    # One microbatch after another; with one, this is plain back-propagation.
    parts = microbatches.split(batch, self._config.training.num_microbatches)
    gradients, network_state_after, scalars = microbatches.gradients(
      outputs, loss, trained, network_state, parts
    )
    gradients, scalars = parallel.pmean((gradients, scalars))
    updates, opt_state = self._optimizer.update(gradients, state.opt_state, trained)
    # The rate is an argument of the step: one program serves all settings.
    updates = jax.tree.map(lambda x: rate * x, updates)
    params = hk.data_structures.merge(frozen, optax.apply_updates(trained, updates))
    scalars |= {
      'gradient_norm': optax.tree.norm(gradients),
      'learning_rate': rate * self._schedule(step),
    }
    network = trainings.Network(params, network_state_after)
    after = trainings.State(network, opt_state, state.has_diverged)
    if may_diverge:
      return trainings.unless_diverged(state, after, scalars)
    return after, scalars

  def _keys(self, batch: Batch, number: int) -> chex.Array:
    """Keys of the images [b], one for each use that has a number of its own."""
    return augment.keys(jax.random.key(self._config.seed), batch['index'], number)

  def _finish(self, training: int) -> dict[str, float]:
    """Keeps what was trained if it is the best so far, or the last."""
    scalars, is_best = {}, True
    if self._trainings.name(training) == trainings.TRAIN:
      has_diverged = bool(parallel.first(self.state.has_diverged))
      if not has_diverged:
        scalars = self._validation_scores()
      score = scalars.get(f'validation_{self.task.criterion}')
      is_best = self._trainings.add_score(score)
    if is_best:
      self.best = jax.tree.map(jnp.copy, self.state.network)  # The state is donated.
    return scalars

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """The scores of the validation split, if there is one that is not trained on.

    They are of the network as it is. Of several trainings, the best one has its scores
    in the report.
    """
    del rng  # Nothing is random.
    # After the last step of a training, `global_step` is the first of the next.
    training, _ = self._trainings.locate(max(global_step - 1, 0))
    is_final = self._trainings.name(training) == trainings.FINAL
    is_over = self._is_grid and global_step == self.num_steps
    if 'validation' not in self._sources or is_final or is_over:
      return {}
    return self._validation_scores()

  def _validation_scores(self) -> dict[str, float]:
    scores = self._score('validation', self.state.network)
    return {f'validation_{name}': value for name, value in scores.scalars.items()}

  def report(self, global_step: int, directory: storage.Path) -> dict[str, Any]:
    """The scores of the test split with their protocol, and a sheet of examples."""
    del global_step
    network = self.best if self._is_grid else self.state.network
    scores = self._score('test', network)
    shown = '  '.join(f'{name} {value:.4g}' for name, value in scores.scalars.items())
    print(f'test split, learning rate {self._rate:g}: {shown}')
    shown, failed = self._shown(network), {}
    with parts.part(f'{self.task.name}.png', failed):
      sheets.sheet(self.task.sheet(shown), directory / f'{self.task.name}.png')
    return ({'failed': failed} if failed else {}) | {
      **scores.scalars,
      **scores.details,
      'learning_rate': self._rate,
      'validation_scores': [
        {'learning_rate': rate, self.task.criterion: score}
        for rate, score in zip(self._rates, self._trainings.scores, strict=False)
      ],
      'encoder': self._start.description,
      'encoder_fingerprint': self._start.fingerprint,
      'protocol': self.task.protocol(self._how_trained()),
    }

  @property
  def _rate(self) -> float:
    """The learning rate of the best setting so far."""
    return self._rates[self._trainings.best]

  def _score(self, name: str, network: trainings.Network) -> Scores:
    predictions = features.outputs(
      lambda batch: self._pmapped_predict(network, batch), self._one_pass(name)
    )
    return self.task.score(predictions, self._sources[name])

  def _predict(self, network: trainings.Network, batch: Batch) -> chex.ArrayTree:
    """The predictions [b, ...] for a batch of test examples, on one device."""
    images = self._prepare(batch['image'])
    return self.task.predict(*network, images, batch)

  def _shown(self, network: trainings.Network) -> list[tuple[Batch, Any]]:
    """The arrays of the first test examples, and what is predicted of each."""
    pairs = features.outputs(
      lambda batch: (batch, self._pmapped_predict(network, batch)),
      self._one_pass('test', _NUM_SHOWN),
    )
    row = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    return [row(pair, i) for pair in pairs for i in range(len(pair[0]['mask']))]

  def _one_pass(self, name: str, num: int | None = None) -> Iterator[loader.Batch]:
    """Every example once, or the first ones, one group after the other."""
    groups = self._groups[name][:num]
    # Shapes may differ between groups, so no batch mixes them.
    for group in np.unique(groups):
      rows = np.flatnonzero(groups == group)
      batches = loader.every_example(
        sources.SubsetSource(self._sources[name], rows),
        make=self.task.test_example,
        batch_size=self._config.evaluation.batch_size,
        max_bad_fraction=self._config.data.max_bad_fraction,
        num_images=len(self._sources[name]),
        max_pixels=self._config.data.max_pixels,
        num_channels=len(self._config.data.mean),
      )
      for batch in batches:
        # From rows of the subset to rows of the source.
        yield batch | {'row': rows[batch['row']].astype(np.int32)}

  def _what_is_trained(self) -> str:
    """Which part of the network, in words."""
    training = self._config.training
    norm = 'frozen' if training.freeze_batch_norm else 'trained'
    if training.train_encoder and not self._has_statistics:
      return 'whole network'
    if training.train_encoder:
      return f'whole network, batch norm of the encoder {norm}'
    if self.task.head_of_encoder:
      return (
        f'head and, as a part of it, the last group of the encoder, batch norm there '
        f'{norm}, on the frozen rest of the encoder'
      )
    return 'head on the frozen encoder'

  def _how_trained(self) -> str:
    """The training in words, for the protocol of a result."""
    data, training = self._config.data, self._config.training
    drops = 'cosine'
    if training.drops:
      drops = f'×0.1 after {" and ".join(f"{x:.3g}" for x in training.drops)} of it'
    chosen = f'learning rate {self._rate:g}'
    if len(self._rates) > 1:
      chosen += (
        f', the best of {len(self._rates)} by {self.task.criterion} on '
        f'{data.validation.source} {data.validation.split}'
      )
    if self._config.retrain:
      chosen += ', trained again on train and validation'
    return (
      f'{self._what_is_trained()}, on {data.train.source} {data.train.split} for '
      f'{training.steps} steps of {self.batch_size} images, '
      f'{optim.describe(self._config.optimizer)}, {training.warmup_steps} steps of '
      f'warm-up, {drops}, {chosen}; one pass over {data.test.source} {data.test.split}'
    )


def _check_choice(config: ml_collections.ConfigDict) -> None:
  """Checks that there is a learning rate, and a validation split if it is to choose.

  Raises:
    ValueError: there is not.
  """
  num_rates = len(config.training.learning_rates)
  if not num_rates:
    raise ValueError(
      'config.training.learning_rates is empty; give one learning rate, or several to '
      'choose from'
    )
  if (num_rates > 1 or config.retrain) and not config.data.validation.source:
    raise ValueError(
      f'{num_rates} learning rate(s), config.retrain = {config.retrain} and no '
      'validation split; set config.data.validation.source and .split, or give one '
      'learning rate and config.retrain = False'
    )
