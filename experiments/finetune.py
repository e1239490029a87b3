"""Fine-tunes an encoder with a linear layer on labels, over a grid of settings.

python -m experiments.finetune --config=configs/finetune/digits_1pct.py --workdir=DIR \
  --config.init_from=RUN

One run is the whole protocol: a training for every setting of the grid, one after the
other, the best of them by the validation split, and if so configured a last training
with its setting on training and validation examples; then, once, the test split.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import shared, trainings
from sslhsic import augment, microbatches, networks, optim, parallel, storage
from sslhsic.data import compared, sources
from sslhsic.evaluation import encoder, features, metrics, probe
from sslhsic.networks import classifier
from sslhsic.runs import runner
from sslhsic.tables import printed
from sslhsic.weights import pretrained


class Setting(NamedTuple):
  """A point of the grid.

  Attributes:
    learning_rate: at the start; falls to zero as a cosine.
    weight_decay: of the weights.
    num_steps: length of the training.
  """

  learning_rate: float
  weight_decay: float
  num_steps: int


class FineTune(trainings.SeveralTrainings):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state', 'best': 'best'}

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    del init_rng, mode  # The seed is that of the configuration; batches come on demand.
    data = config.data
    self.batch_size = config.training.batch_size
    parallel.per_device(config.evaluation.batch_size)
    shared.check_microbatches(config)
    self._config = config
    names = [x for x in ('train', 'validation', 'test') if data[x].source]
    made = compared.create(
      *(data[name] for name in names), allow_overlap=data.allow_overlap
    )
    self._sources = dict(zip(names, made, strict=True))
    self.data_sets = {
      f'data.{name}.source': source for name, source in self._sources.items()
    }
    self._settings = grid(config, len(self._sources['train']))
    if config.retrain:
      self._sources['final'] = sources.ConcatenatedSource(
        self._sources['train'], self._sources['validation']
      )
    self._metric = metrics.create(config.metric)
    self._trainings = trainings.Trainings(
      [x.num_steps for x in self._settings],
      retrain=config.retrain,
      open_input=lambda name: shared.training_input(config, self._sources[name]),
    )
    self.num_steps = self._trainings.num_steps
    self._policy = augment.create(
      config.augment.policy, mean=data.mean, std=data.std, **config.augment.options
    )
    self._prepare = encoder.preparation(data.mean, data.std)
    names = [trainings.TRAIN, trainings.FINAL] if config.retrain else [trainings.TRAIN]
    # Networks differ in the decay of batch norm, which follows the number of examples.
    self._networks = {name: self._network(name) for name in names}
    self._steps = {
      name: parallel.pmap(
        # Of several settings one may diverge; the others go on.
        self._step_of(
          network, may_diverge=name == trainings.TRAIN and len(self._settings) > 1
        ),
        in_axes=(0, 0, None, None),
        out_axes=(0, None),
        donate_argnums=(0,),
      )
      for name, network in self._networks.items()
    }
    self._predict = parallel.pmap(self._logits)
    self._start = self._load()
    self.state = self._initial_state()
    # Never donated: the first training begins with a state of its own.
    self.best = self.state.network

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    config = self._config
    last = ' and one on train and validation' if config.retrain else ''
    return (
      f'fine-tuning of {config.network.encoder} ({self._start.description}) on '
      f'{config.data.train.source}: {len(self._sources["train"]):,} images, '
      f'{len(self._settings)} training(s){last}, {self.num_steps:,} steps of '
      f'{self.batch_size} images on {printed.count(len(parallel.devices()), "device")}'
    )

  # Building

  def _network(self, name: str) -> hk.TransformedWithState:
    config = self._config
    options = dict(config.network.encoder_options)
    has_statistics = networks.class_of(config.network.encoder).has_batch_statistics
    # Kornblith et al. (2019): averages decay by max(1 − 10/s, 0.9), s steps an epoch.
    if config.training.short_batch_norm and has_statistics:
      steps_per_epoch = len(self._sources[name]) / self.batch_size
      options['batch_norm_decay'] = max(1 - 10 / steps_per_epoch, 0.9)
    return classifier.classifier(
      encoder=config.network.encoder,
      encoder_options=options,
      num_classes=self._sources['train'].num_classes,
      axis_name=parallel.AXIS_NAME,
    )

  def _load(self) -> pretrained.Start:
    config = self._config
    shape = shared.image_shape(config, self._sources['train'])
    initial = encoder.initial_values(self._networks['train'], shape, config.seed)
    return pretrained.load(
      config.init_from,
      *initial,
      encoder=config.network.encoder,
      encoder_options=config.network.encoder_options,
      mean=config.data.mean,
      std=config.data.std,
    )

  def _initial_state(self) -> trainings.State:
    network = trainings.Network(self._start.params, self._start.network_state)
    # The shape of the state does not depend on the settings, which come with a step.
    opt_state = self._optimizer(0.0, 0.0).init(network.params)
    return parallel.replicate(trainings.State(network, opt_state, np.bool_(False)))

  def _optimizer(self, learning_rate: chex.Numeric, weight_decay: chex.Numeric):
    return optim.create(
      self._config.optimizer, learning_rate, weight_decay=weight_decay
    )

  # Training

  def step(self, global_step: int, rng: np.ndarray) -> dict[str, chex.Array]:
    """One update; with the last one of a training, its validation."""
    del rng  # Views are decided by their index.
    training, step = self._trainings.locate(global_step)
    if self._trainings.enter(global_step):
      # Every training starts from the same values.
      self.state = self._initial_state()
    setting = self._settings[self._trainings.setting(training)]
    learning_rate = optim.cosine(setting.learning_rate, step, setting.num_steps)
    self.state, scalars = self._steps[self._trainings.name(training)](
      self.state,
      self._trainings.next_batch(),
      learning_rate,
      np.float32(setting.weight_decay),
    )
    scalars |= {'learning_rate': learning_rate, 'training': training}
    if self._trainings.is_last_step(global_step):
      scalars |= self._finish(training)
    return scalars

  def _finish(self, training: int) -> dict[str, float]:
    """Keeps what was trained if it is the best so far, or the last."""
    scalars, is_best = {}, True
    is_of_grid = self._trainings.name(training) == trainings.TRAIN
    if is_of_grid and 'validation' in self._sources:
      has_diverged = bool(parallel.first(self.state.has_diverged))
      score = None if has_diverged else self._score('validation', self.state.network)
      is_best = self._trainings.add_score(score)
      if not has_diverged:
        scalars[f'validation_{self._config.metric}'] = score
    if is_best:
      self.best = jax.tree.map(jnp.copy, self.state.network)  # The state is donated.
    return scalars

  def _step_of(self, network: hk.TransformedWithState, *, may_diverge: bool):
    """The train step on one device."""

    def losses_of_images(params, network_state, batch):
      keys = augment.keys(jax.random.key(self._config.seed), batch['index'], 0)
      images = self._policy(keys, batch['image'])
      logits, network_state = network.apply(params, network_state, None, images, True)
      return probe.cross_entropies(logits, batch['label']), network_state

    def mean_loss(losses):
      loss = jnp.mean(losses)
      return loss, {'loss': loss}

    def step(state, batch, learning_rate, weight_decay):
      params, network_state = state.network
      # One microbatch after another; with one, this is plain back-propagation.
      parts = microbatches.split(batch, self._config.training.num_microbatches)
      gradients, network_state, scalars = microbatches.gradients(
        losses_of_images, mean_loss, params, network_state, parts
      )
      gradients, scalars = parallel.pmean((gradients, scalars))
      # Both settings are arguments of the step: one program serves the whole grid.
      updates, opt_state = self._optimizer(learning_rate, weight_decay).update(
        gradients, state.opt_state, params
      )
      network_after = trainings.Network(
        optax.apply_updates(params, updates), network_state
      )
      scalars |= {'gradient_norm': optax.tree.norm(gradients)}
      after = trainings.State(network_after, opt_state, state.has_diverged)
      return (
        trainings.unless_diverged(state, after, scalars)
        if may_diverge
        else (after, scalars)
      )

    return step

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """The best score on the validation split so far, if there is any."""
    del global_step, rng  # Nothing is random.
    name = f'best_validation_{self._config.metric}'
    best = self._trainings.best_score
    return {name: best} if best >= 0 else {}

  def report(self, global_step: int, directory: storage.Path) -> dict[str, Any]:
    """The test score of the best setting."""
    del global_step, directory
    setting = self._settings[self._trainings.best]
    metric = self._config.metric
    score = self._score('test', self.best)
    print(
      f'fine-tuned {metric} {score:.3f}, of {self._start.description}, at '
      f'learning rate {setting.learning_rate:g}, weight decay '
      f'{setting.weight_decay:g}, {setting.num_steps} steps'
    )
    results = {
      f'finetune_{metric}': score,
      'setting': setting._asdict(),
      'validation_scores': [
        {**tried._asdict(), 'score': score}
        for tried, score in zip(self._settings, self._trainings.scores, strict=False)
      ],
      'encoder': self._start.description,
      'encoder_fingerprint': self._start.fingerprint,
      'trained_fingerprint': pretrained.fingerprint(
        *jax.device_get(parallel.first(self.best))
      ),
      'protocol': self._protocol(),
    }
    for name, function in self._more_metrics().items():
      results[f'finetune_{name}'] = self._score('test', self.best, function)
    return results

  def _more_metrics(self) -> dict[str, Callable]:
    """What the test is scored by besides the metric of the configuration."""
    # With five classes or fewer, top-5 is always right.
    if self._config.metric == 'top1' and self._sources['test'].num_classes > 5:
      return {'top5': functools.partial(metrics.top_k_accuracy, k=5)}
    return {}

  def _score(self, name: str, network: trainings.Network, metric=None) -> float:
    """The metric on a split, each example counted once."""
    logits, labels = features.extract(
      lambda batch: self._predict(network, batch['image']),
      shared.one_pass(self._config, self._sources[name]),
    )
    logits, labels = features.labelled((logits, labels), labels)
    return float((metric or self._metric)(logits, labels))

  def _logits(self, network: trainings.Network, images: chex.Array) -> chex.Array:
    prepared = self._prepare(images)
    # In evaluation mode the networks are the same: the decay is not used.
    return self._networks['train'].apply(*network, None, prepared, False)[0]

  def _protocol(self) -> dict[str, str]:
    config, data = self._config, self._config.data
    chosen = 'the only setting'
    if self._trainings.scores:
      chosen = (
        f'best of {len(self._settings)} settings on {data.validation.source} '
        f'{data.validation.split}'
      )
    if config.retrain:
      chosen += ', trained again on train and validation'
    text = (
      f'whole network fine-tuned on {data.train.source} {data.train.split}, '
      f'{optim.describe(config.optimizer)}, batches of {self.batch_size}, cosine, '
      f"augmentation '{config.augment.policy}'; {chosen}; one pass over "
      f'{data.test.source} {data.test.split}'
    )
    return {f'finetune_{name}': text for name in (config.metric, *self._more_metrics())}


def grid(config: ml_collections.ConfigDict, num_examples: int) -> list[Setting]:
  """Every setting to be tried.

  Raises:
    ValueError: lengths are given neither in epochs nor in steps, or in both; or there
      is a choice and no validation split to choose on.
  """
  training, batch_size = config.training, config.training.batch_size
  if bool(training.epochs) == bool(training.steps):
    raise ValueError(
      f'config.training.epochs is {training.epochs} and config.training.steps '
      f'{training.steps}; give the lengths to try as one of them, the other empty'
    )
  lengths = [epochs * num_examples // batch_size for epochs in training.epochs]
  lengths = lengths or list(training.steps)
  if min(lengths) < 1:
    raise ValueError(
      f'{num_examples} examples make no step of {batch_size}; use smaller batches '
      '(config.training.batch_size) or longer trainings'
    )
  scale = batch_size / training.learning_rate_batch_size
  # The optimiser multiplies rate and decay: the grid is over their product, as in
  # Kornblith et al. (2019).
  settings = [
    Setting(rate * scale, decay / (rate * scale), num_steps)
    for num_steps, rate, decay in itertools.product(
      lengths, training.learning_rates, training.weight_decays
    )
  ]
  if len(settings) > 1 and not config.data.validation.source:
    raise ValueError(
      f'{len(settings)} settings and no validation split to choose one by; set '
      'config.data.validation, or give one setting'
    )
  if config.retrain and (len(lengths) > 1 or not config.data.validation.source):
    raise ValueError(
      'config.retrain needs a validation split, and one length in steps or epochs'
    )
  return settings


if __name__ == '__main__':
  runner.main(FineTune)
