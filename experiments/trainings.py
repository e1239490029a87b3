"""Several trainings in one run: one for every setting, and one more with the best."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import shared
from sslhsic.data import loader
from sslhsic.runs import runner
from sslhsic.weights import pretrained

# Data of the trainings of the settings, and of the last one with the best of them.
TRAIN, FINAL = 'train', 'final'


class Network(NamedTuple):
  """Parameters and batch statistics."""

  params: hk.Params
  network_state: hk.State


class State(NamedTuple):
  """All that a step changes.

  Attributes:
    network: what is trained.
    opt_state: of its optimiser.
    has_diverged: whether the training has come to numbers that are not finite, which
      it did not follow.
  """

  network: Network
  opt_state: optax.OptState
  has_diverged: chex.Array


def unless_diverged(
  before: State, after: State, scalars: dict[str, chex.Array]
) -> tuple[State, dict[str, chex.Array]]:
  """The state after a step, and scalars; once they are not finite, nothing changes."""
  # A weight may overflow in the step whose loss is still finite.
  values = [*jax.tree.leaves(after.network), *scalars.values()]
  is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in values]))
  # Once True it stays True: the state is kept from the first bad step on.
  has_diverged = before.has_diverged | ~is_finite
  keep = lambda x, y: jnp.where(has_diverged, x, y)
  state = jax.tree.map(keep, before, after)._replace(has_diverged=has_diverged)
  # The runner ends a run whose scalars are not finite; these are only logged.
  shown = {name: jnp.where(is_finite, x, 0.0) for name, x in scalars.items()}
  return state, shown | {'has_diverged': has_diverged}


class Trainings:
  """Where a run is among its trainings, with the input of the current one.

  Args:
    lengths: steps of the training of each setting; all the same if there is a last one.
    retrain: whether there is a last training, with the best setting, on `FINAL`.
    open_input: opens the stream of `TRAIN` or `FINAL`.

  Attributes:
    num_steps: of all trainings together.
    scores: on the validation split, of the settings so far; None of one that diverged.
  """

  def __init__(
    self,
    lengths: Sequence[int],
    *,
    retrain: bool,
    open_input: Callable[[str], loader.DeviceIterator],
  ):
    self._num_settings = len(lengths)
    all_lengths = [*lengths, lengths[0]] if retrain else lengths
    self._starts = list(itertools.accumulate(all_lengths, initial=0))
    self.num_steps = self._starts[-1]
    self.scores: list[float | None] = []
    self._open_input = open_input
    self._current: int | None = None  # Which of them has its input open.
    self._input: loader.DeviceIterator | None = None
    # Kept until `enter` opens the stream in which the run resumes.
    self._restored_input: dict[str, Any] | None = None
    self._earlier_wait_s = 0.0

  def locate(self, global_step: int) -> tuple[int, int]:
    """The training that a step belongs to, and its step there."""
    training = int(np.searchsorted(self._starts, global_step, side='right')) - 1
    return training, global_step - self._starts[training]

  def is_last_step(self, global_step: int) -> bool:
    """Whether a step is the last one of its training."""
    # A training ends where the next begins; the last entry is the end of the run.
    return global_step + 1 in self._starts

  def name(self, training: int) -> str:
    """`TRAIN` or `FINAL`."""
    return TRAIN if training < self._num_settings else FINAL

  def setting(self, training: int) -> int:
    """The setting of a training; of the last one the setting of the best score."""
    return self.best if training == self._num_settings else training

  @property
  def best(self) -> int:
    """The setting of the best score, the first of equal ones; 0 if there is none."""
    return self.scores.index(self.best_score) if self.best_score > -np.inf else 0

  @property
  def best_score(self) -> float:
    """The greatest so far; -∞ if there is none."""
    return max((x for x in self.scores if x is not None), default=-np.inf)

  def enter(self, global_step: int) -> bool:
    """Opens the input of a step's training; whether this is the training's start."""
    training, step = self.locate(global_step)
    if training == self._current:
      return False
    if self._input:
      self._earlier_wait_s += self._input.wait_s
      self._input.close()
    self._current, self._input = training, self._open_input(self.name(training))
    # Only a run that resumes enters in the middle of a training.
    if step:
      self._input.restore(self._restored_input)
    return not step

  def next_batch(self) -> chex.ArrayTree:
    """The next batch of the training that was entered."""
    return next(self._input)

  def add_score(self, score: float | None) -> bool:
    """Notes the score of the next setting, None if it diverged; whether it is the best.

    Raises:
      TrainingError: all settings have diverged.
    """
    is_best = score is not None and score > self.best_score
    self.scores.append(score)
    if self.scores == [None] * self._num_settings:
      raise runner.TrainingError(
        f'all {self._num_settings} settings have diverged; use smaller learning rates'
      )
    return is_best

  @property
  def position(self) -> dict[str, Any]:
    """Scores so far, and where the input is, for a checkpoint: JSON types."""
    return {
      'scores': self.scores,
      'input': self._input.state if self._input else None,
    }

  @position.setter
  def position(self, value: dict[str, Any]) -> None:
    self.scores = list(value['scores'])
    self._restored_input = value['input']

  def describe_batch(self, global_step: int) -> dict[str, list]:
    """What a step has seen; see `loader.Stream.describe`."""
    training, step = self.locate(global_step)
    # A new stream serves any training: it is a function of the seed alone.
    return self._open_input(self.name(training)).describe(step)

  @property
  def data_wait_s(self) -> float:
    """Seconds that steps have waited for data."""
    return self._earlier_wait_s + (self._input.wait_s if self._input else 0.0)


class SeveralTrainings(shared.KnownData):
  """Part of an experiment that runs `Trainings`, which all start from one encoder.

  Attributes:
    _config: the configuration.
    _trainings: where the run is.
    _start: the encoder, with a `fingerprint`; a checkpoint holds no more of it.
  """

  NON_BROADCAST_CHECKPOINT_ATTRS: ClassVar = {
    'position': 'position',
    'data_fingerprints': 'data_fingerprints',
  }
  FREE_FIELDS: ClassVar = shared.OneInput.FREE_FIELDS

  _config: ml_collections.ConfigDict
  _trainings: Trainings
  _start: pretrained.Start

  @property
  def position(self) -> dict[str, Any]:
    """Scores so far, where the input is, and which encoder it began with."""
    return self._trainings.position | {'fingerprint': self._start.fingerprint}

  @position.setter
  def position(self, value: dict[str, Any]) -> None:
    pretrained.check_fingerprint(
      value['fingerprint'], self._start.fingerprint, self._config.init_from
    )
    self._trainings.position = value

  def describe_batch(self, global_step: int) -> dict[str, list]:
    """What a step has seen; see `loader.Stream.describe`."""
    return self._trainings.describe_batch(global_step)

  @property
  def data_wait_s(self) -> float:
    """Seconds that steps have waited for data."""
    return self._trainings.data_wait_s
