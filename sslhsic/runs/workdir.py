"""The working directory of a run: one configuration, and the run's results."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import IO, Any

import jax
import ml_collections
from absl import logging

from sslhsic import atomic, storage
from sslhsic.runs import lease, strict_json

try:
  import fcntl
  import resource
except ImportError:  # Windows has neither.
  fcntl = resource = None

# Fields that change neither a training nor its results, with all below them.
_FREE = (
  'runner',
  'data.num_workers',
  'data.max_bad_fraction',
  'evaluation.batch_size',
)
# Fields that do not change a training.
_FREE_TO_RESUME = (*_FREE, 'evaluation', 'training.num_microbatches')
_LOCK = '.lock'
_NOTHING = 'nothing'
# Fields below these are there only if they are set: none of them is ever new.
_FREE_FORM = 'options'

_PACKAGES = ('jax', 'jaxlib', 'dm-haiku', 'optax', 'chex', 'grain', 'numpy')
_GIT_TIMEOUT_S = 10  # On a file system that hangs.


def check(
  workdir: storage.Path,
  config: ml_collections.ConfigDict,
  free: tuple[str, ...] = (),
) -> None:
  """Checks that a run in the directory may resume with this configuration.

  What changes the training must be equal. Fields that the configuration of the
  directory lacks are those of a newer version of the program.

  Args:
    workdir: the directory.
    config: the configuration.
    free: more fields that may differ, with all below them; of which the run itself
      knows again what they name.

  Raises:
    ValueError: it holds a run of another configuration.
  """
  _compare(workdir, config, (*_FREE_TO_RESUME, *free))


def check_results(workdir: storage.Path, config: ml_collections.ConfigDict) -> None:
  """Checks that results in the directory are those of this configuration.

  As `check`, but evaluations must have been measured in the same way too.

  Raises:
    ValueError: it holds a run of another configuration.
  """
  _compare(workdir, config, _FREE)


def _compare(
  workdir: storage.Path, config: ml_collections.ConfigDict, free: tuple[str, ...]
) -> list[str]:
  """The fields that are new since the directory was begun.

  Raises:
    ValueError: a field differs that is neither new nor free.
  """
  found = _renamed(flat(read_json(workdir / 'config.json')))
  wanted = flat(json.loads(config.to_json()))
  if not found:
    return []
  differing, new = [], []
  for name in sorted(found.keys() | wanted.keys()):
    there, here = found.get(name, _NOTHING), wanted.get(name, _NOTHING)
    if there == here or _is_below(name, free):
      continue
    parents = name.split('.')[:-1]
    if name not in found and not any(x.endswith(_FREE_FORM) for x in parents):
      new.append(f'config.{name} = {here}')
    else:
      differing.append(f'{name}: {there} there, {here} here')
  if differing:
    raise ValueError(
      f'{workdir} holds a run of another configuration ({"; ".join(differing)}); '
      'use its configuration or another --workdir'
    )
  return new


def _renamed(found: dict[str, Any]) -> dict[str, Any]:
  """Fields of a directory of version 0.2.0, by their present names."""
  compares = found.pop('evaluation.compare_representations', None)
  if compares is None:
    return found
  names = ['pixels', 'untrained', 'trained'] if compares else []
  return found | {'evaluation.representations': names}


def claim(
  workdir: storage.Path,
  config: ml_collections.ConfigDict,
  free: tuple[str, ...] = (),
) -> IO[str] | lease.Lease:
  """Makes the directory and claims it for this job; no other one can have it then.

  Args:
    workdir: the directory.
    config: the configuration.
    free: fields that may differ, see `check`. New ones are logged.

  Returns:
    What to close to let go of it. The end of the process does so too, whatever it was;
    in a bucket, after `lease.EXPIRY_S` seconds.

  Raises:
    ValueError: another job has it, or it holds a run of another configuration.
    OSError: the directory cannot be made or written.
  """
  check(workdir, config, free)  # Before anything is touched.
  storage.make_directory(workdir)
  held = lease.Lease(workdir) if storage.is_bucket(workdir) else _lock(workdir)
  try:
    # A job that has just ended may have written one.
    new = _compare(workdir, config, (*_FREE_TO_RESUME, *free))
  except ValueError:
    held.close()
    raise
  if new:
    logging.warning('new since the run in %s was begun: %s', workdir, ', '.join(new))
  return held


def _lock(workdir: pathlib.Path) -> IO[str]:
  # Mode 'a+' does not truncate: it keeps the name of a holder for the message.
  file = (workdir / _LOCK).open('a+', encoding='utf-8')
  if not fcntl:
    logging.warning('%s cannot be locked here: start no second job in it', workdir)
    return file
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.seek(0)
    holder = file.read().strip() or 'another process'
    file.close()
    raise ValueError(
      f'{workdir} is in use by {holder}; wait for it, stop it, or use another --workdir'
    ) from error
  except OSError as error:
    logging.warning(
      '%s cannot be locked (%s): start no second job in it', workdir, error
    )
    return file
  file.truncate(0)
  file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
  file.flush()
  return file


def write_config(workdir: storage.Path, config: ml_collections.ConfigDict) -> None:
  """Makes the directory and writes `config.json`.

  Raises:
    OSError: the directory cannot be made or written.
  """
  storage.make_directory(workdir)
  atomic.write(workdir / 'config.json', config.to_json(indent=2) + '\n')


def remove_config(workdir: storage.Path) -> None:
  """Removes `config.json` from a directory that holds nothing else of a run."""
  if set(storage.names(workdir)) <= {'config.json', _LOCK, lease.DIRECTORY}:
    config = workdir / 'config.json'
    if storage.is_bucket(config):
      storage.remove_file(config)
    else:
      config.unlink(missing_ok=True)


def read_json(path: storage.Path) -> dict[str, Any]:
  """A JSON file of a working directory; empty if it is not there.

  So is a damaged one, which the log names.
  """
  if not storage.exists(path):
    return {}
  try:
    value = json.loads(storage.read(path).decode())
  except ValueError as error:
    value = error
  if isinstance(value, dict):
    return value
  reason = value if isinstance(value, ValueError) else 'it holds no JSON object'
  logging.warning('%s is damaged and not used: %s', path, reason)
  return {}


def write_results(workdir: storage.Path, results: dict[str, Any]) -> None:
  """Writes `results.json`: what was measured, and on what."""
  provenance = {'config_digest': _digest(workdir), **_environment()}
  text = strict_json.dumps({**results, **provenance}, indent=2)
  atomic.write(workdir / 'results.json', text + '\n')


def read_results(workdir: storage.Path) -> dict[str, Any]:
  """What was measured in a working directory; empty if it is not done.

  So it is if a part has failed, or if `config.json` has become that of another
  evaluation since.
  """
  found = read_json(workdir / 'results.json')
  # Results of earlier versions do not say.
  is_of_config = found.get('config_digest') in (None, _digest(workdir))
  return found if is_of_config and 'failed' not in found else {}


def _digest(workdir: storage.Path) -> str:
  """A digest of `config.json`, without what changes no result."""
  fields = flat(read_json(workdir / 'config.json'))
  # Weights and data may move, and are known again by their values.
  free = (*_FREE, 'init_from')
  kept = {name: x for name, x in sorted(fields.items()) if not _is_below(name, free)}
  digest = hashlib.blake2b(json.dumps(kept).encode(), digest_size=8)
  return digest.hexdigest()


def _is_below(name: str, fields: Iterable[str]) -> bool:
  """Whether a dotted name is one of these fields, or below one."""
  return any(name == x or name.startswith(f'{x}.') for x in fields)


def _environment() -> dict[str, Any]:
  """Provenance; what cannot be found out is null, and no reason to lose results."""
  return {
    'device': f'{jax.device_count()} × {jax.devices()[0].device_kind}',
    'peak_memory_bytes': _peak_memory_bytes(),
    'versions': {
      'python': platform.python_version(),
      **{package: _version(package) for package in _PACKAGES},
    },
    'git_commit': _git_commit(),
    'command': sys.argv,
  }


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _peak_memory_bytes() -> int | None:
  """Of the first device if it says so, else of this process."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    stats = jax.local_devices()[0].memory_stats() or {}
    if 'peak_bytes_in_use' in stats:
      return stats['peak_bytes_in_use']
  if not resource:
    return None
  # ru_maxrss is in bytes on macOS, in KiB elsewhere.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _git_commit() -> str | None:
  """The commit of the code that runs, marked if files differ from it.

  None without git, or outside of a checkout.
  """
  try:
    describe = subprocess.run(
      # No tag, which would stand in the place of the commit.
      ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=False,
      timeout=_GIT_TIMEOUT_S,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return describe.stdout.strip() or None


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """The leaves of a configuration, by dotted field."""
  leaves = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      leaves.update(flat(value, f'{prefix}{name}.'))
    else:
      leaves[f'{prefix}{name}'] = value
  return leaves
