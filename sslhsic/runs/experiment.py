"""The contract between an experiment and the runner; jaxline's, with a report.

The experiment owns the train step, the target-network update and the evaluations.
The runner owns flags, the loop, checkpoints, logs and signals.
"""

from typing import Any, Protocol

import chex
import ml_collections
import numpy as np

from sslhsic import storage

Scalars = dict[str, chex.Numeric]


class TrainingError(Exception):
  """The run ends early, or its report lacks a part; says why, and what is saved."""


class Experiment(Protocol):
  """What the runner needs of an experiment.

  One that has a method `describe_batch(global_step) -> dict`, of JSON types, lets the
  runner say which batch was not finite. `loss` and `gradient_norm`, of the scalars of a
  step, must be finite.

  One that has an attribute `FREE_FIELDS` may resume with other values of these fields
  of its configuration, with all below them: its host values say whether what they name
  is the same. The setter of such a value raises a `ValueError` if it is not.

  One that has a method `begin() -> bool` gets that call if it starts without a
  checkpoint. It returns whether it has taken its state from somewhere; in mode 'eval'
  only such a state is evaluated.

  Attributes:
    CHECKPOINT_ATTRS: attribute -> name, of what a checkpoint holds: trees of arrays
      that are replicated over this host's devices.
    NON_BROADCAST_CHECKPOINT_ATTRS: likewise, of JSON values that live on the host.
    num_steps: length of the training.
    batch_size: images per step, over all devices.
    data_wait_s: seconds that steps have waited for data so far, whether the devices
      had something to do meanwhile or not; a step waits at its start.
    summary: what is trained, in a line.
  """

  CHECKPOINT_ATTRS: dict[str, str]
  NON_BROADCAST_CHECKPOINT_ATTRS: dict[str, str]
  num_steps: int
  batch_size: int
  data_wait_s: float
  summary: str

  def __init__(
    self, mode: str, init_rng: chex.PRNGKey, config: ml_collections.ConfigDict
  ):
    """Builds networks, data and initial state; `mode` is 'train' or 'eval'."""

  def step(self, global_step: int, rng: np.ndarray) -> Scalars:
    """Updates the state once.

    Replaces the attributes that a checkpoint holds: after an error they are the old
    ones, or what the step has left of them is not saved.

    Args:
      global_step: number of updates before.
      rng: data of the run's key (see `jax.random.wrap_key_data`), the same at every
        step. It is in the host's memory, so that no step waits for the one before:
        fold the step in on the device.

    Returns:
      Scalars, which may still be on their way from the device.
    """
    ...

  def evaluate(self, global_step: int, rng: np.ndarray) -> Scalars:
    """Measures the current state, without changing it; arguments as for `step`."""
    ...

  def report(self, global_step: int, figures: storage.Path) -> dict[str, Any]:
    """Final results (JSON types, with their protocol); writes images to `figures`.

    What failed is among them as 'failed', part -> reason; the others are written.
    """
    ...
