"""What an evaluation starts from: a pre-trained encoder, or a random one."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np
import optax

from sslhsic import optim
from sslhsic.networks import classifier
from sslhsic.training import checkpoint

RANDOM = 'random'

_MAX_NAMED = 5  # Differing parameters that a message lists.


class Start(NamedTuple):
  """Initial values of an evaluation.

  Attributes:
    params, network_state: of its network.
    description: where the encoder comes from, in words.
    fingerprint: of the encoder's values, to know it again.
  """

  params: hk.Params
  network_state: hk.State
  description: str
  fingerprint: str


def load(
  init_from: str,
  params: hk.Params,
  network_state: hk.State,
  *,
  mean: Sequence[float],
  std: Sequence[float],
) -> Start:
  """Replaces the encoder in initial values by a pre-trained one.

  Its parameters are those averaged over training, its batch statistics those of the
  online network, as in the published evaluations.

  Args:
    init_from: the working directory of a pre-training run, for its latest checkpoint;
      one of its checkpoints, DIR/checkpoints/STEP; or 'random', to replace nothing.
    params, network_state: initial values of a network whose encoder is named 'encoder'.
    mean, std: of the images that the network will see.

  Raises:
    ValueError: there is no such checkpoint, the images of its run were normalised
      otherwise, or its encoder is not that of the network.
  """
  if init_from == RANDOM:
    return _start(params, network_state, 'random initial values')
  workdir, step = _find(init_from)
  config = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))
  _check_normalization(config, mean, std, init_from)
  found = checkpoint.read(workdir / 'checkpoints', step)
  state = found.arrays['state']
  average = _averaged(state['average'], config['weight_ema_decay'])
  where = f'{init_from}, step {found.step}'
  return _start(
    _replace_encoder(params, average, where),
    _replace_encoder(network_state, state['network_state'], where),
    f'{where}: {config["loss"]["name"]} on {config["data"]["source"]}',
  )


def check_fingerprint(found: str, here: str, init_from: str) -> None:
  """Refuses to go on with a run that was begun with another encoder.

  Raises:
    ValueError: the fingerprints differ.
  """
  if found != here:
    raise ValueError(
      f'the encoder in {init_from} is another one than when this run was begun '
      f'({here} here, {found} then); name the checkpoint that it was begun with '
      '(DIR/checkpoints/STEP), or use another --workdir'
    )


def _find(init_from: str) -> tuple[pathlib.Path, int | None]:
  """The working directory, and the step if one is asked for."""
  path = pathlib.Path(init_from).expanduser()
  step = None
  if path.parent.name == 'checkpoints' and path.name.isdigit():
    path, step = path.parent.parent, int(path.name)
  if not init_from or not (path / 'config.json').exists():
    raise ValueError(
      f'init_from {init_from!r} is no pre-training run; give its working directory, '
      f"one of its checkpoints (DIR/checkpoints/STEP), or '{RANDOM}'"
    )
  return path, step


def _check_normalization(config, mean, std, init_from):
  there = tuple(config['data']['mean']), tuple(config['data']['std'])
  here = tuple(mean), tuple(std)
  if there != here:
    raise ValueError(
      f'{init_from} has seen images of mean {there[0]} and standard deviation '
      f'{there[1]}, this configuration has {here[0]} and {here[1]}; set '
      'config.data.mean and config.data.std to the former'
    )


def _averaged(average: Mapping[str, Any], decay: float) -> hk.Params:
  """Of the state of `optim.weight_ema`, as it was read."""
  state = optax.EmaState(count=average['count'], ema=average['ema'])
  return jax.device_get(jax.jit(lambda state: optim.averaged(state, decay))(state))


def _replace_encoder(initial, found, where):
  """The tree `initial` with the leaves of its encoder taken from `found`."""
  wanted, there = _encoder(initial), _encoder(found)
  missing = 'nothing'
  shape = lambda leaves, name: leaves[name].shape if name in leaves else missing
  differing = [
    f'{name} is {shape(there, name)} there, {shape(wanted, name)} in the network'
    for name in sorted(wanted.keys() | there.keys())
    if shape(there, name) != shape(wanted, name)
  ]
  if differing:
    raise ValueError(
      f'the encoder of {where} does not fit: {"; ".join(differing[:_MAX_NAMED])}'
      f'{f"; and {len(differing) - _MAX_NAMED} more" * (len(differing) > _MAX_NAMED)}; '
      'set config.network to that of the pre-training'
    )
  return {
    module: {
      name: there.get(f'{module}/{name}', value) for name, value in leaves.items()
    }
    for module, leaves in initial.items()
  }


def _encoder(tree) -> dict[str, Any]:
  """Leaves of the encoder by 'module/name'."""
  return {
    f'{module}/{name}': value
    for module, leaves in tree.items()
    if module.startswith(f'{classifier.ENCODER}/')
    for name, value in leaves.items()
  }


def _start(params, network_state, description) -> Start:
  digest = hashlib.blake2b(digest_size=8)
  for tree in (params, network_state):
    for name, value in sorted(_encoder(tree).items()):
      digest.update(name.encode())
      digest.update(np.ascontiguousarray(value).tobytes())
  return Start(params, network_state, description, digest.hexdigest())
