"""The working directory of a run: one configuration, and the run's results."""

import fcntl
import json
import os
import pathlib
import platform
import resource
import socket
import subprocess
import sys
from importlib import metadata
from typing import IO, Any

import jax
import ml_collections
from absl import logging

from sslhsic.runs import writers

# Settings of how a run is watched and kept; they may change when it goes on.
_FREE = 'runner'
_PACKAGES = ('jax', 'jaxlib', 'dm-haiku', 'optax', 'chex', 'grain', 'numpy')


def check(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Checks that the directory may be used with this configuration.

  Raises:
    ValueError: it holds a run of another configuration.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  found = json.loads(path.read_text(encoding='utf-8'))
  differing = _differences(flat(found), flat(json.loads(config.to_json())))
  if differing:
    raise ValueError(
      f'{workdir} holds a run of another configuration ({"; ".join(differing)}); '
      'use its configuration or another --workdir'
    )


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> IO[str]:
  """Makes the directory and claims it for this job; no other one can have it then.

  Returns:
    What to close to let go of it; the end of the process does so too, whatever it was.

  Raises:
    ValueError: another job has it, or it holds a run of another configuration.
    OSError: the directory cannot be made or written.
  """
  check(workdir, config)  # Before anything is touched.
  workdir.mkdir(parents=True, exist_ok=True)
  file = _lock(workdir)
  check(workdir, config)  # A job that has just ended may have written one.
  return file


def _lock(workdir: pathlib.Path) -> IO[str]:
  file = (workdir / '.lock').open('a+', encoding='utf-8')
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


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Makes the directory and writes `config.json`.

  Raises:
    OSError: the directory cannot be made or written.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  writers.write_atomically(workdir / 'config.json', config.to_json(indent=2) + '\n')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file of a working directory; empty if it is not there."""
  return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def write_results(workdir: pathlib.Path, results: dict[str, Any]) -> None:
  """Writes `results.json`: what was measured, and on what."""
  text = json.dumps({**results, **_environment()}, indent=2)
  writers.write_atomically(workdir / 'results.json', text + '\n')


def _environment() -> dict[str, Any]:
  return {
    'device': f'{jax.device_count()} × {jax.devices()[0].device_kind}',
    'peak_memory_bytes': _peak_memory_bytes(),
    'versions': {
      'python': platform.python_version(),
      **{package: metadata.version(package) for package in _PACKAGES},
    },
    'git_commit': _git_commit(),
    'command': sys.argv,
  }


def _peak_memory_bytes() -> int:
  """Of the first device if it says so, else of this process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return stats.get('peak_bytes_in_use', resident)


def _git_commit() -> str | None:
  """The commit of the code that runs, marked if files differ from it."""
  describe = subprocess.run(
    ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  )
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


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
  missing = 'nothing'
  return [
    f'{name}: {found.get(name, missing)} there, {wanted.get(name, missing)} here'
    for name in sorted(found.keys() | wanted.keys())
    if found.get(name, missing) != wanted.get(name, missing)
    and not name.startswith(f'{_FREE}.')
  ]
