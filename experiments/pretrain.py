"""Pre-trains an image encoder with a self-supervised loss.

python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR

The step is `sslhsic.pretraining.step.train_step`; this file wires it to the data, the
configuration and the runner.
"""

import functools
import pathlib
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import ml_collections

from experiments import shared
from sslhsic import optim, parallel
from sslhsic.data import loader, sources
from sslhsic.evaluation import pretrained
from sslhsic.pretraining import (
  build,
  evaluation,
  initial,
  microbatches,
  step,
  views,
)
from sslhsic.pretraining import state as state_lib
from sslhsic.runs import checks, runner


class Pretrain(shared.KnownData):
  """The experiment; see `sslhsic.runs.experiment` for the contract.

  Attributes:
    training: what a step is made of.
    state: all that training changes, replicated over the devices.
    input: where the batches of `step` come from; None in an evaluation.
    source: the training images.
  """

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state'}
  NON_BROADCAST_CHECKPOINT_ATTRS: ClassVar = {
    'input_state': 'input_state',
    'data_fingerprints': 'data_fingerprints',
  }
  FREE_FIELDS: ClassVar = ('data.source',)

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    self.batch_size = config.training.batch_size
    for batch_size in (self.batch_size, config.evaluation.batch_size):
      parallel.per_device(batch_size)
    microbatches.check(
      parallel.per_device(self.batch_size), config.training.num_microbatches
    )
    self._config, self._init_rng = config, init_rng
    self._views = views.parse(config.augment.views)
    self.source = sources.create(config.data.source, config.data.train_split)
    self.data_sets = {'data.source': self.source}
    checks.warmup_fits(
      'training.warmup_epochs', config.training.warmup_epochs, config.training.epochs
    )
    initial.check(config.init_what)
    self.num_steps = build.num_steps(config, len(self.source))
    self.training = build.training(config, self._views, self.source)
    self.training.loss.check_batch(parallel.per_device(self.batch_size))
    self._evaluation = evaluation.Evaluation(config, self.training.model.online)
    self._step = parallel.pmap(
      functools.partial(step.train_step, self.training),
      in_axes=(0, 0, None, None, None),
      out_axes=(0, None),
      donate_argnums=(0,),
    )
    # An argument of the step, so that all seeds have one compiled program.
    self._seed_key = jax.random.key(config.seed)
    self.state = self._initial_state()
    self.input = self.make_input() if mode == 'train' else None

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    config, training = self._config, self._config.training
    base = config.optimizer.base_learning_rate
    peak = optim.scaled_learning_rate(base, self.batch_size)
    count = training.num_microbatches
    needs = {
      'online classifier': self.source.num_classes,
      'kNN and comparison of representations': self._evaluation.is_comparable,
    }
    missing = [name for name, has_labels in needs.items() if not has_labels]
    unmeasured = f'; no {" and no ".join(missing)}, for lack of labels'
    return (
      f'{config.loss.name} {"with" if config.target_network else "without"} target '
      f'network, {config.network.encoder} on {config.data.source}: '
      f'{len(self.source):,} images, {self.num_steps:,} steps of '
      f'{self.batch_size} images {f"in {count} microbatches " if count > 1 else ""}on '
      f'{len(parallel.devices())} device(s) in {training.precision}, learning rate '
      f'{peak:g} = {base:g}·{self.batch_size}/256{unmeasured if missing else ""}'
    )

  def make_input(self) -> loader.DeviceIterator:
    """The batches of the training, from their start."""
    data = self._config.data
    batches = loader.views(
      self.source,
      batch_size=self.batch_size,
      seed=self._config.seed,
      crops=[view.crop(data.crop_size) for view in self._views],
      num_workers=data.num_workers,
      max_bad_fraction=data.max_bad_fraction,
    )
    return loader.DeviceIterator(batches)

  def _initial_state(self) -> state_lib.State:
    crop = evaluation.centre_crop(self._config.data.crop_size)
    images = jnp.zeros((1, *loader.image_shape(self.source, crop)))
    size = self._config.network.head.output_size
    init = lambda rng: step.initial_state(self.training, rng, images, size)
    return parallel.pmap(init)(parallel.replicate(self._init_rng))

  def begin(self) -> None:
    """Starts from another run or from weights, if `config.init_from` names any.

    Raises:
      ValueError: it does not fit, or there are fewer images than a batch takes.
    """
    config = self._config
    # Not in the constructor: a benchmark needs no more images than it reads.
    where = f'{config.data.source} {config.data.train_split}'
    checks.batch_fits(self.batch_size, len(self.source), where)
    if config.init_from == pretrained.RANDOM:
      return
    state, description = initial.state(
      jax.device_get(parallel.first(self.state)),
      config.init_from,
      config.init_what,
      mean=config.data.mean,
      std=config.data.std,
    )
    self.state = parallel.replicate(state)
    print(f'starting from the {config.init_what} of {description}')

  # Training

  def step(self, global_step: int, rng: chex.PRNGKey) -> dict[str, chex.Array]:
    """One update of everything in `state`."""
    self.state, scalars = self._step(
      self.state, next(self.input), rng, self._seed_key, jnp.int32(global_step)
    )
    return scalars

  def compile(self, rng: chex.PRNGKey) -> jax.stages.Compiled:
    """Compiles the step before it is taken, to look at it; takes a batch of the input.

    Args:
      rng: a key like those that `step` is given.
    """
    batch = next(self.input)
    lowered = self._step.lower(self.state, batch, rng, self._seed_key, jnp.int32(0))
    self._step = lowered.compile()
    return self._step

  @property
  def input_state(self) -> dict[str, Any]:
    """Where the input is in its stream."""
    return self.input.state

  @input_state.setter
  def input_state(self, value: dict[str, Any]) -> None:
    if self.input:
      self.input.restore(value)

  def describe_batch(self, global_step: int) -> dict[str, list]:
    """What a step has seen; see `loader.Stream.describe`."""
    return self.input.describe(global_step)

  @property
  def data_wait_s(self) -> float:
    """Seconds that steps have waited for data."""
    return self.input.wait_s

  # Evaluation, with the parameters averaged over training

  def evaluate(self, global_step: int, rng: chex.PRNGKey) -> dict[str, float]:
    """Collapse measures and, where there are labels, kNN and online classifier."""
    del global_step, rng  # Nothing is random.
    return self._evaluation.measure(self._averaged_network())

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """Compares pixels, the untrained and the trained encoder, as configured."""
    del global_step
    results = {'protocol': self._evaluation.protocol()}
    if self.input:
      results['skipped_images'] = self.input.num_bad_images
    config = self._config.evaluation
    if not (config.compare_representations and self._evaluation.is_comparable):
      return results
    return results | self._evaluation.compare(
      self._untrained_network, self._averaged_network(), directory
    )

  def _averaged_network(self) -> evaluation.Network:
    decay = self._config.weight_ema_decay
    average = parallel.pmap(lambda ema: optim.averaged(ema, decay))
    return average(self.state.average), self.state.network_state

  def _untrained_network(self) -> evaluation.Network:
    state = self._initial_state()
    network = state.params, state.network_state
    return self._evaluation.calibrated(network, self.source)


if __name__ == '__main__':
  runner.main(Pretrain)
