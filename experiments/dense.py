"""What the dense evaluations share: an encoder trained with a head, and evaluated."""

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import ml_collections
import numpy as np
import optax

from experiments import shared
from sslhsic import augment, optim, parallel
from sslhsic.data import loader, reading, sources
from sslhsic.evaluation import encoder, features, pretrained
from sslhsic.networks import classifier

Batch = dict[str, chex.Array]

_NUM_SHOWN = 6  # Examples on the sheet of pictures.


class State(NamedTuple):
  """All that training changes: the network, and the state of its optimiser."""

  params: hk.Params
  network_state: hk.State
  opt_state: optax.OptState


class DenseExperiment(shared.OneInput):
  """The experiment, but for its task; see `sslhsic.runs.experiment`.

  A subclass says what `kind` of annotation it needs, and implements `_build_network`,
  `_training_example`, `_test_example`, `_loss` and `_predict`, besides `evaluate` and
  `report`.
  """

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state'}
  kind: ClassVar[str]

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    del init_rng  # The seed is that of the configuration.
    data, training = config.data, config.training
    for batch_size in (training.batch_size, config.evaluation.batch_size):
      parallel.per_device(batch_size)
    self._config = config
    self.batch_size, self.num_steps = training.batch_size, training.steps
    self._train, self._test = (
      sources.create(part.source, part.split) for part in (data.train, data.test)
    )
    self.data_sets = {'data.train.source': self._train, 'data.test.source': self._test}
    self._annotations = sources.annotations(self._train, self.kind)
    sources.annotations(self._test, self.kind)
    self._network = self._build_network()
    self._policy = augment.create(config.augment.policy, mean=data.mean, std=data.std)
    self._prepare = encoder.preparation(data.mean, data.std)
    self._schedule = optim.warmup_drops(
      training.learning_rate, training.warmup_steps, self.num_steps, training.drops
    )
    self._optimizer = optim.sgd(
      self._schedule, momentum=0.9, weight_decay=training.weight_decay
    )
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
      f'{self.kind} with {config.network.encoder} ({self._encoder.description}), '
      f'{what}, on {config.data.train.source}: {len(self._train):,} images, '
      f'{self.num_steps:,} steps of {self.batch_size} images on '
      f'{len(parallel.devices())} device(s) in {training.precision}, learning rate '
      f'{training.learning_rate:g}'
    )

  # Building

  def _build_network(self) -> hk.TransformedWithState:
    """A pair of Haiku functions of (images, is_training)."""
    raise NotImplementedError

  def _training_example(self) -> reading.Make:
    """What makes the arrays of a training example, 'image' among them."""
    raise NotImplementedError

  def _test_example(self) -> reading.Make:
    """What makes the arrays of a test example, 'image' among them."""
    raise NotImplementedError

  def _load(self) -> pretrained.Start:
    config = self._config
    if config.init_from == pretrained.RANDOM and config.training.freeze_batch_norm:
      raise ValueError(
        'a random encoder has no batch statistics to freeze; set '
        'config.training.freeze_batch_norm = False'
      )
    example, _ = reading.first_decodable(self._test, range(len(self._test)))
    image = self._test_example()(np.random.default_rng(0), example)['image']
    initial = encoder.initial_values(self._network, image.shape, config.seed)
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
      is_norm = 'batchnorm' in module
      frozen = not training.train_encoder or (training.freeze_batch_norm and is_norm)
      return frozen and module.startswith(f'{classifier.ENCODER}/')

    return hk.data_structures.partition(stays, params)

  def _open_input(self) -> loader.DeviceIterator:
    data = self._config.data
    return loader.DeviceIterator(
      loader.Stream(
        self._train,
        make=self._training_example(),
        batch_size=self.batch_size,
        seed=self._config.seed,
        num_workers=data.num_workers,
        max_bad_fraction=data.max_bad_fraction,
      )
    )

  # Training

  def step(self, global_step: int, rng: chex.PRNGKey) -> dict[str, chex.Array]:
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
    frozen, trained = self._split(state.params)

    def loss_fn(trained: hk.Params):
      params = hk.data_structures.merge(frozen, trained)
      return self._loss(params, state.network_state, images, batch)

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

  def _loss(
    self, params: hk.Params, network_state: hk.State, images: chex.Array, batch: Batch
  ) -> tuple[chex.Array, tuple[hk.State, dict[str, chex.Array]]]:
    """The loss of all devices' images, the batch statistics after it, and scalars."""
    raise NotImplementedError

  # Evaluation

  def _predict(
    self, params: hk.Params, network_state: hk.State, batch: Batch
  ) -> chex.ArrayTree:
    """What is made of each example [b, ...] of a batch of test examples."""
    raise NotImplementedError

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
      make=self._test_example(),
      batch_size=self._config.evaluation.batch_size,
      max_bad_fraction=self._config.data.max_bad_fraction,
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
      f'SGD with momentum 0.9, weight decay {training.weight_decay:g}, learning rate '
      f'{training.learning_rate:g}, {training.warmup_steps} steps of warm-up, {drops}; '
      f'one pass over {data.test.source} {data.test.split}'
    )
