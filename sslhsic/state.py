"""The state of pre-training: what a checkpoint holds, and what evaluations read of it.

Checkpoints store the fields of `State` by name; evaluations of other programs find the
averaged encoder by the names in this file alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import numpy as np
import optax


class State(NamedTuple):
  """All that training changes.

  Attributes:
    params: parameters of the online network.
    network_state: batch statistics of the online network.
    target_params: parameters of the target network, or None.
    target_state: batch statistics of the target network, or None.
    loss_params: parameters of the loss.
    loss_state: state of the loss without gradient, such as a queue; often empty.
    opt_state: state of the optimiser of `params`.
    loss_opt_state: state of the optimiser of `loss_params`.
    average: moving average of `params`, for evaluation.
  """

  params: hk.Params
  network_state: hk.State
  target_params: hk.Params | None
  target_state: hk.State | None
  loss_params: chex.ArrayTree
  loss_state: chex.ArrayTree
  opt_state: optax.OptState
  loss_opt_state: optax.OptState
  average: optax.EmaState


class Saved(NamedTuple):
  """The online network that a checkpoint holds.

  Attributes:
    averaged: parameters, averaged over training.
    params: parameters as they are.
    network_state: batch statistics.
  """

  averaged: hk.Params
  params: hk.Params
  network_state: hk.State


def online_network(saved: Mapping[str, Any], decay: float) -> Saved:
  """The online network, of the arrays that a checkpoint holds of a `State`.

  Args:
    saved: fields of `State` by name.
    decay: `config.weight_ema_decay`.
  """
  params, average = saved['params'], saved['average']
  count = int(average['count'])
  # On the host: devices differ in how they round powers and divisions, and the same
  # encoder is to be known again on all of them.
  weight = np.float32(1 - decay**count)
  averaged = jax.tree.map(lambda x: x / weight, average['ema']) if count else params
  return Saved(averaged, params, saved['network_state'])


def with_decay(average: optax.EmaState, decay: float, new: float) -> optax.EmaState:
  """The state of `optim.weight_ema` with the same average at another decay."""
  count = int(average.count)
  if new == decay or not count:
    return average
  factor = np.float32((1 - new**count) / (1 - decay**count))
  return average._replace(ema=jax.tree.map(lambda x: x * factor, average.ema))
