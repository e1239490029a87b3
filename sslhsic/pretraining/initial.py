"""Pre-training that starts from an earlier one, or from weights of an encoder."""

import numpy as np
import optax

from sslhsic.evaluation import pretrained
from sslhsic.pretraining.state import State

STATE, ENCODER = 'state', 'encoder'


def check(what: str) -> None:
  """Checks a value of `config.init_what`.

  Raises:
    ValueError: there is no such value.
  """
  if what not in (STATE, ENCODER):
    raise ValueError(f'config.init_what is {what!r}; use {STATE} or {ENCODER}')


def state(
  initial: State,
  init_from: str,
  what: str,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
) -> tuple[State, str]:
  """The state at the start of a training with a schedule of its own.

  Args:
    initial: random initial values, on the host.
    init_from: what to start from, see `pretrained.load`.
    what: 'state' takes everything of a pre-training run: both networks, the parameters
      of the loss, averages and the state of the optimisers, whose schedule starts anew.
      'encoder' takes the averaged encoder for both networks, and nothing else.
    mean, std: of the images.

  Returns:
    The state, and in words where it comes from.

  Raises:
    ValueError: there is no such run or file, or it does not fit.
  """
  if what == STATE:
    saved, description = pretrained.read_state(init_from, initial, mean=mean, std=std)
    opt_state = optax.tree.set(saved.opt_state, _is_of_schedule, count=np.int32(0))
    return saved._replace(opt_state=opt_state), description
  load = lambda *initial: pretrained.load(init_from, *initial, mean=mean, std=std)
  online = load(initial.params, initial.network_state)
  started = initial._replace(params=online.params, network_state=online.network_state)
  if initial.target_params is not None:
    target = load(initial.target_params, initial.target_state)
    started = started._replace(
      target_params=target.params, target_state=target.network_state
    )
  return started, online.description


def _is_of_schedule(path: tuple, value: object) -> bool:
  """Whether a part of an optimiser's state is where it is in its schedule."""
  del value
  return getattr(path[-1], 'tuple_name', '') == optax.ScaleByScheduleState.__name__
