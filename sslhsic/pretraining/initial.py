"""Pre-training that starts from an earlier one, or from weights of an encoder."""

import functools

import ml_collections
import numpy as np
import optax

from sslhsic import parallel
from sslhsic.state import State
from sslhsic.weights import pretrained

STATE, ENCODER = 'state', 'encoder'


def check(what: str) -> None:
  """Checks a value of `config.init_what`.

  Raises:
    ValueError: there is no such value.
  """
  if what not in (STATE, ENCODER):
    raise ValueError(f'config.init_what is {what!r}; use {STATE} or {ENCODER}')


def state(
  state: State, config: ml_collections.ConfigDict, what: str
) -> tuple[State, str]:
  """The state at the start of a training with a schedule of its own.

  `config.init_from` names what to start from (see `pretrained.load`), unless it is
  'random'. Of it is taken

  - 'state': everything of a pre-training run: both networks, the parameters of the
    loss, averages and the state of the optimisers, whose schedule starts anew.
  - 'encoder': the averaged encoder, for both networks, and nothing else.

  Args:
    state: random initial values, replicated over the devices.
    config: the configuration of the pre-training.
    what: 'state' or 'encoder'.

  Returns:
    The state, replicated, and where it comes from, in words; empty if from nowhere.
    Prints it.

  Raises:
    ValueError: there is no such run or file, or it does not fit.
  """
  if config.init_from == pretrained.RANDOM:
    return state, ''
  start = _whole if what == STATE else _encoder
  state, description = start(parallel.first(state), config)
  print(f'starting from the {what} of {description}')
  return parallel.replicate(state), description


def _whole(initial: State, config: ml_collections.ConfigDict) -> tuple[State, str]:
  saved, description = pretrained.read_state(
    config.init_from,
    initial,
    encoder=config.network.encoder,
    encoder_options=config.network.encoder_options,
    mean=config.data.mean,
    std=config.data.std,
    weight_ema_decay=config.weight_ema_decay,
  )
  opt_state = optax.tree.set(saved.opt_state, _is_of_schedule, count=np.int32(0))
  return saved._replace(opt_state=opt_state), description


def _encoder(initial: State, config: ml_collections.ConfigDict) -> tuple[State, str]:
  load = functools.partial(
    pretrained.load,
    config.init_from,
    encoder=config.network.encoder,
    encoder_options=config.network.encoder_options,
    mean=config.data.mean,
    std=config.data.std,
  )
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
  # Adam's state has a `count` too, for its bias correction, which stays.
  return getattr(path[-1], 'tuple_name', '') == optax.ScaleByScheduleState.__name__
