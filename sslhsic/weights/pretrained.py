"""What an evaluation starts from: a pre-trained encoder, or a random one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import numpy as np
from absl import logging

from sslhsic import networks, storage
from sslhsic import state as state_lib
from sslhsic.networks import classifier
from sslhsic.runs import checkpoint, paths
from sslhsic.runs import workdir as workdir_lib
from sslhsic.weights import described, files, layouts
from sslhsic.weights import settings as settings_lib

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


class Run(NamedTuple):
  """What a pre-training run has saved.

  Attributes:
    workdir: of the run.
    step: of the checkpoint.
    config: of the run.
    averaged, online: parameters of the online network, averaged over training and as
      they are.
    network_state: its batch statistics.
    settings: of its encoder.
  """

  workdir: storage.Path
  step: int
  config: dict[str, Any]
  averaged: hk.Params
  online: hk.Params
  network_state: hk.State
  settings: settings_lib.Settings


def load(
  init_from: str,
  params: hk.Params,
  network_state: hk.State,
  *,
  encoder: str,
  encoder_options: Mapping[str, Any],
  mean: Sequence[float],
  std: Sequence[float],
) -> Start:
  """Replaces the encoder in initial values by a pre-trained one.

  A pre-training run gives its averaged parameters and the batch statistics of the
  online network, as in the published evaluations. A fine-tuning run gives the network
  it tested.

  Args:
    init_from: the working directory of a pre-training run, for its latest checkpoint;
      one of its checkpoints, DIR/checkpoints/STEP; a finished fine-tuning run;
      a safetensors file in a layout of `families`, or a directory with its
      model.safetensors; or 'random', to replace nothing.
    params, network_state: initial values of a network whose encoder is named 'encoder'.
    encoder, encoder_options: that network, see `networks.create`.
    mean, std: of the images that the network will see.

  Raises:
    ValueError: there is no such checkpoint or file, the fine-tuning has not tested it,
      its images were normalised otherwise, or its encoder is not that of the network.
  """
  if init_from == RANDOM:
    return _start(params, network_state, 'random initial values')
  unseen = networks.unseen_options(encoder, encoder_options)
  path = _file(init_from)
  if path:
    return _from_file(files.read(path), params, network_state, unseen, mean, std)
  workdir, step, config, found = _encoder_of_run(init_from)
  _check_unseen(found, unseen, init_from)
  _check_normalization(found, mean, std, init_from)
  arrays = checkpoint.read(workdir / 'checkpoints', step).arrays
  if _is_pretraining(config):
    saved = state_lib.online_network(arrays['state'], config['weight_ema_decay'])
    trained = {'params': saved.averaged, 'network_state': saved.network_state}
  else:
    trained = arrays['best']
  replace = lambda initial, there: _replace_encoder(
    initial, _encoder(there), found.description, _flags(found)
  )
  return _start(
    replace(params, trained['params']),
    replace(network_state, trained['network_state']),
    found.description,
  )


def settings(init_from: str) -> settings_lib.Settings:
  """Which network an encoder is, and which images it has seen.

  Args:
    init_from: as that of `load`, but not 'random'.

  Raises:
    ValueError: there is no such checkpoint or file, or it cannot be told.
  """
  path = _file(init_from)
  if path:
    return files.read(path).known_settings
  return _encoder_of_run(init_from)[-1]


def read_run(init_from: str) -> Run:
  """Reads a checkpoint of a pre-training run.

  Args:
    init_from: a working directory, or DIR/checkpoints/STEP.

  Raises:
    ValueError: there is no such checkpoint, it is damaged, or it is of a fine-tuning.
  """
  workdir, step, config, found = _describe(init_from)
  origin = config.get('init_from', RANDOM)
  began = '' if origin == RANDOM else f', such as the one that it began with, {origin}'
  _check_pretraining(config, init_from, f'give a pre-training run{began}')
  state = checkpoint.read(workdir / 'checkpoints', step).arrays['state']
  saved = state_lib.online_network(state, config['weight_ema_decay'])
  return Run(workdir, step, config, *saved, found)


def read_state(
  init_from: str,
  like: state_lib.State,
  *,
  encoder: str,
  encoder_options: Mapping[str, Any],
  mean: Sequence[float],
  std: Sequence[float],
  weight_ema_decay: float,
) -> tuple[state_lib.State, str]:
  """Reads all that the training of a pre-training run changes.

  Args:
    init_from: a working directory, or DIR/checkpoints/STEP.
    like: a state with the same structure, shapes and types.
    encoder, encoder_options: the network of that, see `networks.create`.
    mean, std: of the images that the networks will see.
    weight_ema_decay: of the averages from here on.

  Returns:
    The state, on the host, and where it comes from, in words.

  Raises:
    ValueError: there is no such checkpoint, it is damaged or does not fit, it is of a
      fine-tuning, or its images were normalised otherwise.
  """
  if _file(init_from):
    raise ValueError(
      f'{init_from} has the weights of an encoder and no state of a training; set '
      "config.init_what = 'encoder'"
    )
  workdir, step, config, settings = _describe(init_from)
  remedy = "set config.init_what = 'encoder' to begin with its encoder"
  _check_pretraining(config, init_from, remedy)
  _check_unseen(settings, networks.unseen_options(encoder, encoder_options), init_from)
  _check_normalization(settings, mean, std, init_from)
  found = checkpoint.read(workdir / 'checkpoints', step, {'state': like})
  state = found.arrays['state']
  average = state_lib.with_decay(
    state.average, config['weight_ema_decay'], weight_ema_decay
  )
  return state._replace(average=average), settings.description


def _file(init_from: str) -> storage.Path | None:
  """The file of weights that a path names, see `files.locate`."""
  return files.locate(paths.parse(init_from, 'init_from'))


_Described = tuple[storage.Path, int, dict[str, Any], settings_lib.Settings]


def _encoder_of_run(init_from: str) -> _Described:
  """As `_describe`; a fine-tuning has chosen and tested its network at this step."""
  workdir, step, config, found = _describe(init_from)
  if not _is_pretraining(config):
    tested = workdir_lib.read_json(workdir / 'results.json').get('steps')
    if tested != step:
      so_far = 'no results' if tested is None else f'results of step {tested} alone'
      raise ValueError(
        f'the fine-tuning in {workdir} has {so_far}, not of step {step}, whose network '
        'may not be chosen yet; give the directory, after its command has run to the '
        'end, and with --mode=eval if it was --mode=train'
      )
  return workdir, step, config, found


def _describe(init_from: str) -> _Described:
  """Working directory, step, configuration and settings of a checkpoint, unread."""
  workdir, step = _find(init_from)
  config = workdir_lib.read_json(workdir / 'config.json')
  if not config:
    raise ValueError(
      f'{workdir / "config.json"} is damaged; without it the encoder in {workdir} is '
      'not known. Resume the run with its command, which writes the file again'
    )
  if _is_pretraining(config):
    trained = f'{config["loss"]["name"]} on {config["data"]["source"]}'
  elif _is_fine_tuning(config):
    trained = f'fine-tuned on {config["data"]["train"]["source"]}'
  else:
    raise ValueError(
      f'{init_from} is a run of another program; give the pre-training run that it '
      f'began with, {config.get("init_from", "which it does not say")}'
    )
  step = checkpoint.resolve(workdir / 'checkpoints', step)
  description = f'{init_from}, step {step}: {trained}'
  return workdir, step, config, settings_lib.of_run(config, description)


def _is_pretraining(config: Mapping[str, Any]) -> bool:
  return 'target_network' in config  # Of all programs, only this one has the field.


def _is_fine_tuning(config: Mapping[str, Any]) -> bool:
  # Dense tasks retrain too, and have no metric. A transfer has runs of its tasks.
  return config.keys() >= {'retrain', 'metric'} and 'tasks' not in config


def _check_pretraining(config: Mapping[str, Any], init_from: str, remedy: str) -> None:
  if not _is_pretraining(config):
    raise ValueError(
      f'{init_from} is a run of fine-tuning, not a pre-training; {remedy}'
    )


def fingerprint(params: layouts.Tree, network_state: layouts.Tree) -> str:
  """A digest of the values of the encoder among these."""
  digest = hashlib.blake2b(digest_size=8)
  for tree in (params, network_state):
    # Sorted, as the order of modules must not change the digest.
    for name, value in sorted(_encoder(tree).items()):
      digest.update(name.encode())
      digest.update(np.ascontiguousarray(value).tobytes())
  return digest.hexdigest()


def check_fingerprint(found: str, here: str, init_from: str) -> None:
  """Checks that a run was begun with the same encoder.

  Raises:
    ValueError: the fingerprints differ.
  """
  if found != here:
    raise ValueError(
      f'the encoder in {init_from} is another one than when this run was begun '
      f'({here} here, {found} then); name the checkpoint that it was begun with '
      '(DIR/checkpoints/STEP), or use another --workdir'
    )


def _find(init_from: str) -> tuple[storage.Path, int | None]:
  """The working directory, and the step if one is asked for."""
  path = paths.parse(init_from, 'init_from')
  step = None
  if path.parent.name == 'checkpoints' and path.name.isdigit():
    path, step = path.parent.parent, int(path.name)
  if not init_from or not storage.exists(path / 'config.json'):
    found = f'init_from {init_from!r} is no pre-training run'
    if not init_from:
      found = 'init_from is empty'
    elif not storage.exists(path):
      found = f'init_from {init_from!r} is not there'
    raise ValueError(
      f'{found}; give the working directory of a pre-training run, one of its '
      'checkpoints (DIR/checkpoints/STEP), a finished fine-tuning, or a safetensors '
      'file'
    )
  return path, step


def _check_normalization(
  found: settings_lib.Settings | described.Described,
  mean: Sequence[float],
  std: Sequence[float],
  init_from: str,
) -> None:
  if (found.mean, found.std) != (tuple(mean), tuple(std)):
    raise ValueError(
      f'{init_from} has seen images of mean {found.mean} and standard deviation '
      f'{found.std}, this configuration has {tuple(mean)} and {tuple(std)}; set '
      'config.data.mean and config.data.std to the former'
    )


def _check_unseen(
  found: settings_lib.Settings, wanted: Mapping[str, Any], init_from: str
) -> None:
  """Checks the options that no shape shows: other values would give garbage."""
  there = networks.unseen_options(found.encoder, found.encoder_options)
  # Networks of different classes do not fit anyway.
  for name in there.keys() & wanted.keys():
    if there[name] != wanted[name]:
      raise ValueError(
        f'the encoder of {init_from} does not fit: its {name} is {there[name]}, '
        f'{wanted[name]} in the network; {_flags(found)}'
      )


def _check_described(
  file: files.EncoderFile,
  unseen: Mapping[str, Any],
  mean: Sequence[float],
  std: Sequence[float],
) -> None:
  """Checks what is said beside a file, and nothing that would be a guess."""
  there, here = file.described.num_heads, unseen.get('num_heads')
  if there and here and there != here:
    raise ValueError(
      f'the encoder of {file.path} does not fit: its num_heads is {there}, {here} in '
      f'the network; set config.network.encoder_options.num_heads = {there}'
    )
  if file.described.mean and file.described.std:
    _check_normalization(file.described, mean, std, str(file.path))


def _from_file(
  file: files.EncoderFile,
  params: hk.Params,
  network_state: hk.State,
  unseen: Mapping[str, Any],
  mean: Sequence[float],
  std: Sequence[float],
) -> Start:
  if file.settings:
    _check_unseen(file.settings, unseen, str(file.path))
    _check_normalization(file.settings, mean, std, str(file.path))
  else:
    _check_described(file, unseen, mean, std)
  if file.not_used:
    logging.warning('%s: not used are %s', file.path, file.not_used)
  layout, where = file.layout, str(file.path)
  of_encoder = lambda tree: hk.data_structures.filter(
    lambda module, *_: classifier.is_of_encoder(module), tree
  )
  ours = [of_encoder(tree) for tree in (params, network_state)]
  remedy = 'set config.network to the network of the file'
  if file.settings:
    remedy = _flags(file.settings)
  # What the network lacks; `_replace_encoder` reports what the file lacks.
  known = layouts.names(layout, *ours) | layout.computed(file.tensors)
  unknown = layout.unpack(file.tensors).keys() - known
  if unknown:
    raise ValueError(
      f'the encoder of {where} does not fit: the network has no '
      f'{_listed(sorted(unknown))}; {remedy}'
    )

  # Messages call values as the file does, or as Haiku does where it has none.
  called = lambda module, name: layout.tensor(module, name) or f'{module}/{name}'

  def replace(tree, wanted):
    values = layouts.from_tensors(layout, file.tensors, wanted)
    return _replace_encoder(tree, _encoder(values), where, remedy, called)

  description = file.settings.description if file.settings else ''
  return _start(
    replace(params, ours[0]),
    replace(network_state, ours[1]),
    f'{where}, {description or f"in the layout of {layout.name}"}',
  )


def _replace_encoder(
  initial: Mapping[str, Mapping[str, Any]],
  there: dict[str, Any],
  where: str,
  remedy: str,
  called: Callable[[str, str], str] = '{}/{}'.format,
) -> dict[str, dict[str, Any]]:
  """The tree `initial` with the leaves of its encoder taken from `there`."""
  wanted = _encoder(initial)
  missing = 'nothing'
  shape = lambda leaves, name: leaves[name].shape if name in leaves else missing
  differing = [
    f'{called(*name.rsplit("/", 1))} is {shape(there, name)} there, '
    f'{shape(wanted, name)} in the network'
    for name in sorted(wanted.keys() | there.keys())
    if shape(there, name) != shape(wanted, name)
  ]
  if differing:
    raise ValueError(
      f'the encoder of {where} does not fit: {_listed(differing, "; ")}; {remedy}'
    )
  # Leaves outside the encoder keep their initial values.
  return {
    module: {
      name: there.get(f'{module}/{name}', value) for name, value in leaves.items()
    }
    for module, leaves in initial.items()
  }


def _flags(settings: settings_lib.Settings) -> str:
  """What to do where an encoder does not fit the configuration."""
  return (
    f'use its network, --config.network.encoder={settings.encoder} '
    f'--config.network.encoder_options="{dict(settings.encoder_options)}"'
  )


def _listed(names: Sequence[str], separator: str = ', ') -> str:
  more = len(names) - _MAX_NAMED
  text = separator.join(names[:_MAX_NAMED])
  return f'{text}{separator}and {more} more' if more > 0 else text


def _encoder(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """Leaves of the encoder by 'module/name'."""
  return {
    f'{module}/{name}': value
    for module, leaves in tree.items()
    if classifier.is_of_encoder(module)
    for name, value in leaves.items()
  }


def _start(params: hk.Params, network_state: hk.State, description: str) -> Start:
  found = fingerprint(params, network_state)
  return Start(params, network_state, description, found)
