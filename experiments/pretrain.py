"""Pre-trains an image encoder with a self-supervised loss.

python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR

The step is `sslhsic.pretraining.step.train_step`; this file wires it to the data, the
configuration and the runner.
"""

from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import shared
from sslhsic import parallel, storage
from sslhsic import state as state_lib
from sslhsic.data import loader
from sslhsic.evaluation import encoder
from sslhsic.pretraining import (
  build,
  comparison,
  evaluation,
  extraction,
  initial,
  step,
  views,
)
from sslhsic.runs import runner
from sslhsic.weights import pretrained


class Pretrain(shared.KnownData):
  """The experiment; see `sslhsic.runs.experiment` for the contract.

  Attributes:
    fills_a_batch: whether the training images must be as many as a batch takes.
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

  fills_a_batch: ClassVar = True

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    self.batch_size = config.training.batch_size
    self._config, self._init_rng = config, init_rng
    self._views = views.parse(config.augment.views)
    self.source = build.source(config)
    self.data_sets = {'data.source': self.source}
    build.check(config, len(self.source) if self.fills_a_batch else None)
    self.num_steps = build.num_steps(config, len(self.source))
    self.training = build.training(config, self._views, self.source)
    self._extraction = extraction.Extraction(config, self.training, self._views)
    self._evaluation = evaluation.Evaluation(
      config, self._extraction, build.num_classes(self.source), self._untrained_network
    )
    self._comparison = None
    if config.evaluation.representations:
      self._comparison = comparison.Comparison(config, self._extraction)
    build.check_minima(config, self.training, self._evaluation.names, self.source)
    self._step = parallel.pmap(
      self._train_step,
      in_axes=(0, 0, None, None, None),
      out_axes=(0, None),
      donate_argnums=(0,),
    )
    self._initialize = parallel.pmap(self._initial_values)
    # An argument of the step, so that all seeds have one compiled program.
    self._seed_key = np.asarray(jax.random.key_data(jax.random.key(config.seed)))
    self.state = self._initial_state()
    self._measured = ''  # Where an evaluated encoder is from, if it was given.
    self.input = self.make_input() if mode == 'train' else None

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    missing = list(self._evaluation.skipped)
    if self._comparison and not self._comparison.is_possible:
      missing.append('comparison of representations')
    lacks = f'; no {" and no ".join(missing)}, for lack of labels' if missing else ''
    return build.describe(self._config, len(self.source)) + lacks

  def make_input(self) -> loader.DeviceIterator:
    """The batches of the training, from their start."""
    return loader.DeviceIterator(build.batches(self._config, self._views, self.source))

  def _initial_state(self) -> state_lib.State:
    return self._initialize(parallel.replicate(jax.random.key_data(self._init_rng)))

  def _initial_values(self, rng: chex.Array) -> state_lib.State:
    data = self._config.data
    crop = encoder.crop(data.crop_size)
    shape = loader.image_shape(self.source, crop, data.max_pixels, len(data.mean))
    images = jnp.zeros((1, *shape))
    size = self._config.network.head.output_size
    rng = jax.random.wrap_key_data(rng)
    return step.initial_state(self.training, rng, images, size)

  def begin(self) -> bool:
    """Starts from another run or from weights; whether `config.init_from` names any.

    An evaluation takes the encoder alone, which is then what is measured.
    """
    is_evaluation = self.input is None
    what = initial.ENCODER if is_evaluation else self._config.init_what
    self.state, start = initial.state(self.state, self._config, what)
    if is_evaluation:
      self._measured = start
      self._evaluation.of_encoder_alone()  # Nobody has trained the rest.
    return bool(start)

  # Training

  def step(self, global_step: int, rng: np.ndarray) -> dict[str, chex.Array]:
    """Updates everything in `state` once."""
    self.state, scalars = self._step(
      self.state, next(self.input), rng, self._seed_key, np.int32(global_step)
    )
    return scalars

  def _train_step(
    self,
    state: state_lib.State,
    batch: loader.Batch,
    rng: chex.Array,
    seed_key: chex.Array,
    global_step: chex.Array,
  ) -> tuple[state_lib.State, dict[str, chex.Array]]:
    """One step on one device; keys are made here, from their data."""
    rng, seed_key = (jax.random.wrap_key_data(data) for data in (rng, seed_key))
    # The runner passes the same key at every step.
    rng = jax.random.fold_in(rng, global_step)
    return step.train_step(self.training, state, batch, rng, seed_key, global_step)

  def compile(self, rng: np.ndarray) -> jax.stages.Compiled:
    """Compiles the step to look at it; takes a batch, and `rng` as `step`."""
    batch = next(self.input)
    lowered = self._step.lower(self.state, batch, rng, self._seed_key, np.int32(0))
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

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """Results of the evaluators of the configuration."""
    del global_step, rng  # Nothing is random but augmented views, by the seed.
    return self._evaluation.measure(self._averaged_network())

  def report(self, global_step: int, directory: storage.Path) -> dict[str, Any]:
    """Compares the representations of the configuration."""
    del global_step
    results = {'protocol': self._evaluation.protocol()}
    fingerprint = pretrained.fingerprint(*self._averaged_on_host())
    if self._measured:
      results |= {'encoder': self._measured, 'encoder_fingerprint': fingerprint}
      results['protocol']['features'] = (
        f'embedding of the encoder in evaluation mode, {self._measured}'
      )
    else:
      results['trained_fingerprint'] = fingerprint
    if self.input:
      results['skipped_images'] = self.input.num_bad_images
    if not (self._comparison and self._comparison.is_possible):
      return results
    results['protocol'] = self._comparison.protocol() | results['protocol']
    return results | self._comparison(
      self._untrained_network, self._averaged_network, directory
    )

  def _averaged_network(self) -> extraction.Network:
    return parallel.replicate(self._averaged_on_host())

  def _averaged_on_host(self) -> extraction.Network:
    """The same bits as evaluations of the checkpoint and exports have."""
    state = self.state._asdict() | {'average': self.state.average._asdict()}
    names = 'params', 'network_state', 'average'
    arrays = jax.device_get(parallel.first({name: state[name] for name in names}))
    saved = state_lib.online_network(arrays, self._config.weight_ema_decay)
    return saved.averaged, saved.network_state

  def _untrained_network(self) -> extraction.Network:
    # A function of the seed: made again rather than kept in memory.
    state = self._initial_state()
    network = state.params, state.network_state
    return self._extraction.calibrated(network, self.source)


if __name__ == '__main__':
  runner.main(Pretrain)
