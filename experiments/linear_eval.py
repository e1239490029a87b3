"""Trains linear classifiers on the embeddings of a frozen encoder.

python -m experiments.linear_eval --config=configs/linear_eval/digits.py --workdir=DIR \
  --config.init_from=RUN
"""

import functools
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import shared
from sslhsic import augment, microbatches, optim, parallel, storage
from sslhsic.data import compared, sources
from sslhsic.evaluation import features, metrics, probe
from sslhsic.runs import checks, runner
from sslhsic.tables import printed


class State(NamedTuple):
  """All that training changes.

  Attributes:
    classifiers: weights [K, c, C] and biases [K, C], one for each learning rate.
    opt_state: of their optimiser.
    average: of the classifiers over training, for evaluation.
  """

  classifiers: probe.LinearProbe
  opt_state: optax.OptState
  average: optax.EmaState


class LinearEval(shared.OneInput):
  """The experiment; see `sslhsic.runs.experiment` for the contract.

  The classifiers of all learning rates are trained on the same embeddings in one pass.
  Where there is a validation split, the learning rate is chosen on it. Further test
  sets, `config.evaluation.extra_tests`, are classified into the classes they have.
  """

  CHECKPOINT_ATTRS: ClassVar = {'state': 'state'}

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    del init_rng  # Classifiers start at zero.
    data, training = config.data, config.training
    self.batch_size = training.batch_size
    shared.check_microbatches(config)
    self._config = config
    parts = [data.test] + [data.validation] * bool(data.validation.source)
    extra = shared.extra_tests(config)
    self._train, self._test, *others = compared.create(
      data.train, *parts, *extra.values(), allow_overlap=data.allow_overlap
    )
    self._validation = others.pop(0) if data.validation.source else None
    self._extra_tests = dict(zip(extra, others, strict=True))
    self.data_sets = {'data.train.source': self._train, 'data.test.source': self._test}
    if self._validation:
      self.data_sets['data.validation.source'] = self._validation
    self._learning_rates = learning_rates(config)
    self._num_classes = sources.single_label_classes(self._train)
    checks.batch_fits(
      self.batch_size, len(self._train), f'{data.train.source} {data.train.split}'
    )
    self.num_steps = training.epochs * len(self._train) // self.batch_size
    checks.warmup_fits('training.warmup_steps', training.warmup_steps, self.num_steps)
    self._encoder = shared.frozen_encoder(config, self._train)
    self._policy = augment.create(
      config.augment.policy, mean=data.mean, std=data.std, **config.augment.options
    )
    # Its steps are multiplied by the learning rate of each classifier.
    self._optimizer = optim.create(
      config.optimizer, optim.warmup_cosine(1.0, training.warmup_steps, self.num_steps)
    )
    self._average = optim.weight_ema(config.weight_ema_decay)
    self._pmapped_step = parallel.pmap(
      self._step, out_axes=(0, None), donate_argnums=(0,)
    )
    self._pmapped_hits = parallel.pmap(self._hits, in_axes=(0, 0, 0, 0, None))
    self.state = parallel.replicate(self._initial_state())
    self._input = (
      shared.training_input(config, self._train) if mode == 'train' else None
    )

  @property
  def summary(self) -> str:
    """What is trained, in a line."""
    rates = ', '.join(f'{rate:g}' for rate in self._learning_rates)
    return (
      f'linear classifiers of {self._config.network.encoder} ('
      f'{self._encoder.description}) on {self._config.data.train.source}: '
      f'{len(self._train):,} images, {self.num_steps:,} steps of {self.batch_size} '
      f'images on {printed.count(len(parallel.devices()), "device")}, '
      f'learning rates {rates}'
    )

  # Building

  def _initial_state(self) -> State:
    num_rates = len(self._learning_rates)
    shape = (num_rates, self._encoder.embedding_size, self._num_classes)
    classifiers = probe.LinearProbe(
      jnp.zeros(shape), jnp.zeros((num_rates, self._num_classes))
    )
    return State(
      classifiers=classifiers,
      opt_state=jax.vmap(self._optimizer.init)(classifiers),
      average=self._average.init(classifiers),
    )

  # Training

  def step(self, global_step: int, rng: np.ndarray) -> dict[str, chex.Array]:
    """One update of all classifiers."""
    del global_step, rng  # The optimiser counts; views are decided by their index.
    self.state, scalars = self._pmapped_step(
      self.state, self._encoder.params, self._encoder.network_state, next(self._input)
    )
    return scalars

  def _step(self, state: State, params, network_state, batch):
    """The train step on one device."""

    def embed(batch):
      keys = augment.keys(jax.random.key(self._config.seed), batch['index'], 0)
      images = self._policy(keys, batch['image'])
      return self._encoder.apply(params, network_state, images)

    # Outside the loss: the encoder is frozen and needs no gradient. So the classifiers
    # see the whole batch, of which one microbatch after another was embedded.
    parts = microbatches.split(batch, self._config.training.num_microbatches)
    embeddings = microbatches.join(microbatches.apply(embed, parts))
    gradients, scalars = jax.grad(self._total_loss, has_aux=True)(
      state.classifiers, embeddings, batch['label']
    )
    gradients, scalars = parallel.pmean((gradients, scalars))
    # Mapped over the classifiers: norms, as LARS uses them, must not mix these.
    updates, opt_state = jax.vmap(self._optimizer.update)(
      gradients, state.opt_state, state.classifiers
    )
    rates = jnp.array(self._learning_rates, jnp.float32)
    updates = probe.LinearProbe(
      updates.weights * rates[:, None, None], updates.bias * rates[:, None]
    )
    classifiers = optax.apply_updates(state.classifiers, updates)
    # The average takes the new parameters in the place of updates.
    _, average = self._average.update(classifiers, state.average)
    return State(classifiers, opt_state, average), scalars

  def _total_loss(self, classifiers, embeddings, labels):
    """The sum of the losses of all classifiers, which share nothing."""
    logits = jax.vmap(probe.predict, in_axes=(0, None))(classifiers, embeddings)
    losses = jax.vmap(probe.cross_entropy, in_axes=(0, None))(logits, labels)
    scalars = {'loss': jnp.mean(losses)}
    for rate, loss, scores in zip(self._learning_rates, losses, logits, strict=True):
      scalars[f'loss_{rate:g}'] = loss
      scalars[f'train_top1_{rate:g}'] = metrics.top_k_accuracy(scores, labels)
    # They share nothing, so the gradient of the sum is the gradient of each.
    return jnp.sum(losses), scalars

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """Accuracy of every classifier, on the validation split if there is one."""
    del global_step, rng  # Nothing is random.
    name, source = 'test', self._test
    if self._validation:
      name, source = 'validation', self._validation
    top1, _ = self._accuracies(source)
    return {
      f'{name}_top1_{rate:g}': value
      for rate, value in zip(self._learning_rates, top1, strict=True)
    }

  def report(self, global_step: int, directory: storage.Path) -> dict[str, Any]:
    """Top-1 and top-5 on the test split, of the learning rate chosen."""
    del global_step, directory
    chosen, validation_top1 = 0, {}
    if self._validation:
      top1, _ = self._accuracies(self._validation)
      chosen = int(np.argmax(top1))
      validation_top1 = {
        f'{rate:g}': value
        for rate, value in zip(self._learning_rates, top1, strict=True)
      }
    top1, top5 = (accuracy[chosen] for accuracy in self._accuracies(self._test))
    rate = self._learning_rates[chosen]
    print(
      f'linear top-1 {top1:.3f}, top-5 {top5:.3f}, learning rate {rate:g}, of '
      f'{self._encoder.description}'
    )
    return self._extra_results(chosen) | {
      'linear_top1': top1,
      'linear_top5': top5,
      'learning_rate': rate,
      'validation_top1': validation_top1,
      'encoder': self._encoder.description,
      'encoder_fingerprint': self._encoder.fingerprint,
      'protocol': self._protocol(),
    }

  def _extra_results(self, chosen: int) -> dict[str, float]:
    """Top-1 and top-5 on the further test sets, of the learning rate chosen."""
    results = {}
    for name, source in self._extra_tests.items():
      classes = shared.classes_there(source)
      top1, top5 = (accuracy[chosen] for accuracy in self._accuracies(source, classes))
      print(
        f'{name}: top-1 {top1:.3f}, top-5 {top5:.3f}, among {classes.sum()} classes'
      )
      results |= {f'linear_{name}_top1': top1, f'linear_{name}_top5': top5}
    return results

  def _accuracies(
    self, source: sources.Source, classes: np.ndarray | None = None
  ) -> tuple[list[float], list[float]]:
    """Top-1 and top-5 of every classifier, each example counted once.

    Args:
      source: the examples.
      classes: [C] bool, the classes to choose from; None: all.
    """
    if classes is None:
      classes = np.ones(self._num_classes, bool)
    hits, labels = features.extract(
      lambda batch: self._pmapped_hits(
        self.state, self._encoder.params, self._encoder.network_state, batch, classes
      ),
      shared.one_pass(self._config, source),
    )
    hits = features.labelled(hits, labels)
    return tuple(accuracy.mean(axis=0).tolist() for accuracy in hits)

  def _hits(self, state: State, params, network_state, batch, classes):
    """Whether each example [b] is right in the top 1 and top 5 of each classifier."""
    embeddings = self._encoder.apply(
      params, network_state, self._encoder.prepare(batch['image'])
    )
    classifiers = optim.averaged(state.average, self._config.weight_ema_decay)
    logits = jax.vmap(probe.predict, in_axes=(0, None))(classifiers, embeddings)
    logits = jnp.where(classes[None, None], logits, -jnp.inf)
    return tuple(
      # [b, K]: examples come first, as `features.extract` concatenates them.
      jax.vmap(
        functools.partial(metrics.in_top_k, k=min(k, self._num_classes)),
        in_axes=(0, None),
        out_axes=1,
      )(logits, batch['label'])
      for k in (1, 5)
    )

  def _protocol(self) -> dict[str, str]:
    config, data = self._config, self._config.data
    chosen = 'the only learning rate'
    if self._validation:
      chosen = (
        f'one of {len(self._learning_rates)} learning rates, chosen by top-1 on '
        f'{data.validation.source} {data.validation.split}'
      )
    extra = {
      f'linear_{name}_top1': f'as linear_top1, on {part.source} {part.split}, among '
      f'its {shared.classes_there(self._extra_tests[name]).sum()} classes'
      for name, part in config.evaluation.extra_tests.items()
    }
    return extra | {
      'linear_top1': f'linear classifier on the frozen encoder, trained on '
      f'{data.train.source} {data.train.split} for {config.training.epochs} epochs of '
      f'batches of {self.batch_size}, {optim.describe(config.optimizer)}, '
      f'{config.training.warmup_steps} steps of warm-up, cosine, augmentation '
      f"'{config.augment.policy}'; {chosen}; classifier averaged with decay "
      f'{config.weight_ema_decay}; one pass over {data.test.source} {data.test.split}',
    }


def learning_rates(config: ml_collections.ConfigDict) -> list[float]:
  """The learning rates to be tried, for this batch size.

  Raises:
    ValueError: there is none, or a choice and no validation split to choose on.
  """
  optimizer = config.optimizer
  scale = config.training.batch_size / optimizer.learning_rate_batch_size
  if not optimizer.learning_rates:
    raise ValueError('config.optimizer.learning_rates is empty; give at least one')
  has_choice = len(optimizer.learning_rates) > 1
  if has_choice and not config.data.validation.source:
    raise ValueError(
      f'{len(optimizer.learning_rates)} learning rates and no validation split to '
      'choose one by; set config.data.validation, or give one learning rate'
    )
  return [rate * scale for rate in optimizer.learning_rates]


if __name__ == '__main__':
  runner.main(LinearEval)
