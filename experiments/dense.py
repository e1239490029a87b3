"""The experiment of the dense tasks: an encoder trained with a head, and evaluated."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import ml_collections
import numpy as np
import optax

from experiments import shared
from sslhsic import augment, networks, optim, parallel
from sslhsic.data import compared, loader, reading, sources
from sslhsic.evaluation import encoder, features
from sslhsic.networks import classifier
from sslhsic.plots import sheets
from sslhsic.tasks.task import Batch, Task
from sslhsic.weights import pretrained

CreateTask = Callable[[ml_collections.ConfigDict, sources.Source], Task]

_NUM_SHOWN = 6  # On the sheet of examples.


class State(NamedTuple):
  """All that training changes: the network, and the state of its optimiser."""

  params: hk.Params
  network_state: hk.State
  opt_state: optax.OptState


class DenseExperiment(shared.OneInput):
  """The experiment of a task; see `sslhsic.runs.experiment` for the contract.

  Args:
    create_task: the task of a configuration and its training source.
    mode, init_rng, config: as of every experiment.

  Attributes:
    task: what is learned, and how it is scored.
    state: all that training changes, replicated over the devices.
  """

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state'}

  def __init__(
    self,
    create_task: CreateTask,
    mode: str,
    init_rng: chex.PRNGKey,
    config: ml_collections.ConfigDict,
  ):
    del init_rng  # The seed is that of the configuration.
    data, training = config.data, config.training
    for batch_size in (training.batch_size, config.evaluation.batch_size):
      parallel.per_device(batch_size)
    self._config = config
    self.batch_size, self.num_steps = training.batch_size, training.steps
    self._train, self._test = compared.create(
      data.train, data.test, allow_overlap=data.allow_overlap, need_labels=False
    )
    self.data_sets = {'data.train.source': self._train, 'data.test.source': self._test}
    self.task = create_task(config, self._train)
    for source in (self._train, self._test):
      for kind in self.task.kinds:
        sources.annotations(source, kind)
    self._policy = augment.create(config.augment.policy, mean=data.mean, std=data.std)
    self._prepare = encoder.preparation(data.mean, data.std)
    self._schedule = optim.warmup_drops(
      training.learning_rate, training.warmup_steps, self.num_steps, training.drops
    )
    self._optimizer = optim.create(config.optimizer, self._schedule)
    start = self._load()
    self._encoder = start._replace(params=None, network_state=None)
    self.state = self._initial_state(start)
    self._pmapped_step = parallel.pmap(
      self._step, in_axes=(0, 0, None), out_axes=(0, None), donate_argnums=(0,)
    )
    self._pmapped_predict = parallel.pmap(self._predict)
    self._input = self._open_input() if mode == 'train' else None

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    config, training = self._config, self._config.training
    what = 'whole network' if training.train_encoder else 'head on the frozen encoder'
    return (
      f'{self.task.name} with {config.network.encoder} ({self._encoder.description}), '
      f'{what}, on {config.data.train.source}: {len(self._train):,} images, '
      f'{self.num_steps:,} steps of {self.batch_size} images on '
      f'{len(parallel.devices())} device(s) in {training.precision}, learning rate '
      f'{training.learning_rate:g}'
    )

  # Building

  def _load(self) -> pretrained.Start:
    config = self._config
    has_statistics = networks.class_of(config.network.encoder).has_batch_statistics
    if config.training.freeze_batch_norm and not has_statistics:
      raise ValueError(
        f'{config.network.encoder} has no batch norm to freeze; set '
        'config.training.freeze_batch_norm = False'
      )
    if config.init_from == pretrained.RANDOM and config.training.freeze_batch_norm:
      raise ValueError(
        'a random encoder has no batch statistics to freeze; set '
        'config.training.freeze_batch_norm = False'
      )
    example, _ = reading.first_decodable(self._test, range(len(self._test)))
    image = self.task.test_example(np.random.default_rng(0), example)['image']
    initial = encoder.initial_values(self.task.network, image.shape, config.seed)
    return pretrained.load(
      config.init_from, *initial, mean=config.data.mean, std=config.data.std
    )

  def _initial_state(self, start: pretrained.Start) -> State:
    _, trained = self._split(start.params)
    opt_state = self._optimizer.init(trained)
    return parallel.replicate(State(start.params, start.network_state, opt_state))

  def _split(self, params: hk.Params) -> tuple[hk.Params, hk.Params]:
    """The parameters that stay as they are, and those that are trained."""
    training = self._config.training

    def stays(module: str, *_) -> bool:
      is_norm = networks.class_of(self._config.network.encoder).is_normalisation(module)
      frozen = not training.train_encoder or (training.freeze_batch_norm and is_norm)
      return frozen and module.startswith(f'{classifier.ENCODER}/')

    return hk.data_structures.partition(stays, params)

  def _open_input(self) -> loader.DeviceIterator:
    data = self._config.data
    return loader.DeviceIterator(
      loader.Stream(
        self._train,
        make=self.task.training_example,
        batch_size=self.batch_size,
        seed=self._config.seed,
        num_workers=data.num_workers,
        max_bad_fraction=data.max_bad_fraction,
        max_pixels=data.max_pixels,
      )
    )

  # Training

  def step(self, global_step: int, rng: np.ndarray) -> dict[str, chex.Array]:
    """One update of head and, unless it is frozen, encoder."""
    del rng  # What is random is decided by the index of an image.
    self.state, scalars = self._pmapped_step(
      self.state, next(self._input), np.int32(global_step)
    )
    return scalars

  def _step(
    self, state: State, batch: Batch, global_step: chex.Array
  ) -> tuple[State, dict[str, chex.Array]]:
    """The train step on one device."""
    images = self._policy(self._keys(batch, 0), batch['image'])
    keys = self._keys(batch, 1)
    frozen, trained = self._split(state.params)

    def loss_fn(trained: hk.Params):
      params = hk.data_structures.merge(frozen, trained)
      return self.task.loss(params, state.network_state, images, batch, keys)

    (loss, (network_state, scalars)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(trained)
    gradients, scalars = parallel.pmean((gradients, scalars | {'loss': loss}))
    updates, opt_state = self._optimizer.update(gradients, state.opt_state, trained)
    params = hk.data_structures.merge(frozen, optax.apply_updates(trained, updates))
    scalars |= {
      'gradient_norm': optax.tree.norm(gradients),
      'learning_rate': self._schedule(global_step),
    }
    return State(params, network_state, opt_state), scalars

  def _keys(self, batch: Batch, number: int) -> chex.Array:
    """Keys of the images [b], one for each use that has a number of its own."""
    return augment.keys(jax.random.key(self._config.seed), batch['index'], number)

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """The scores of the test split."""
    del global_step, rng  # Nothing is random.
    self._scores = self.task.score(self._predictions(self._test), self._test)
    return self._scores.scalars

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """Details of the last `evaluate` and their protocol, and a sheet of examples."""
    del global_step
    sheets.sheet(self.task.sheet(self._shown()), directory / f'{self.task.name}.png')
    return {
      **self._scores.details,
      'encoder': self._encoder.description,
      'encoder_fingerprint': self._encoder.fingerprint,
      'protocol': self.task.protocol(self._how_trained()),
    }

  def _predict(
    self, params: hk.Params, network_state: hk.State, batch: Batch
  ) -> chex.ArrayTree:
    """The predictions [b, ...] for a batch of test examples, on one device."""
    images = self._prepare(batch['image'])
    return self.task.predict(params, network_state, images, batch)

  def _predictions(self, source: sources.Source) -> Iterator[chex.ArrayTree]:
    """`_predict` of every example, batch by batch; see `features.outputs`."""
    return features.outputs(
      lambda batch: self._pmapped_predict(
        self.state.params, self.state.network_state, batch
      ),
      self._one_pass(source),
    )

  def _shown(self) -> list[tuple[Batch, Any]]:
    """The arrays of the first test examples, and what is predicted of each."""
    first = sources.SubsetSource(
      self._test, np.arange(min(_NUM_SHOWN, len(self._test)))
    )
    pairs = features.outputs(
      lambda batch: (
        batch,
        self._pmapped_predict(self.state.params, self.state.network_state, batch),
      ),
      self._one_pass(first),
    )
    row = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    return [row(pair, i) for pair in pairs for i in range(len(pair[0]['mask']))]

  def _one_pass(self, source: sources.Source) -> Iterator[loader.Batch]:
    return loader.every_example(
      source,
      make=self.task.test_example,
      batch_size=self._config.evaluation.batch_size,
      max_bad_fraction=self._config.data.max_bad_fraction,
      max_pixels=self._config.data.max_pixels,
    )

  def _how_trained(self) -> str:
    """The training in words, for the protocol of a result."""
    data, training = self._config.data, self._config.training
    frozen = 'whole network' if training.train_encoder else 'head on the frozen encoder'
    norm = 'frozen' if training.freeze_batch_norm else 'trained'
    drops = 'cosine'
    if training.drops:
      drops = f'×0.1 after {" and ".join(f"{x:.3g}" for x in training.drops)} of it'
    return (
      f'{frozen}, batch norm of the encoder {norm}, on {data.train.source} '
      f'{data.train.split} for {self.num_steps} steps of {self.batch_size} images, '
      f'{optim.describe(self._config.optimizer)}, learning rate '
      f'{training.learning_rate:g}, {training.warmup_steps} steps of warm-up, {drops}; '
      f'one pass over {data.test.source} {data.test.split}'
    )
