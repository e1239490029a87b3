"""What XLA compiles, kept for the next start of a run on every host."""

import atexit
import contextlib
import io
import itertools
import json
import os
import pathlib
import shutil
import tempfile

import jax
import numpy as np

from sslhsic import storage
from sslhsic.runs import processes

_ENTRIES = '*-cache'  # JAX's files of compiled programs.
_MOST_BYTES = 2**30  # That are sent; they are on the devices for a moment.


def keep(workdir: storage.Path) -> None:
  """Keeps what is compiled in a working directory, unless JAX was told where to.

  Of several processes, JAX lets the first alone write. The others get from it what
  their host lacks, so that a run that resumes compiles nothing again on any host.
  """
  if jax.config.jax_compilation_cache_dir:
    return
  if storage.is_bucket(workdir):  # JAX reads and writes there by itself.
    jax.config.update('jax_compilation_cache_dir', f'{workdir}/compilation_cache')
    return
  directory = _made(pathlib.Path(workdir) / 'compilation_cache')
  jax.config.update('jax_compilation_cache_dir', str(directory))
  if jax.process_count() > 1:
    # XLA's own caches would make the directory part of what an entry is found by.
    jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')
    _fetch(directory)


def _made(directory: pathlib.Path) -> pathlib.Path:
  """The directory; in a process that cannot write there a temporary one."""
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError:
    if processes.is_first():
      raise
    directory = pathlib.Path(tempfile.mkdtemp(prefix='sslhsic-compilations-'))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
  return directory


def _fetch(directory: pathlib.Path) -> None:
  """Copies what the first process has, and another one lacks, through the devices."""
  names = processes.first_does(lambda: _offered(directory))
  names = json.loads(processes.from_first(json.dumps(names).encode()))
  if not names:
    return
  is_missing = [not (directory / name).exists() for name in names]
  wanted = list(itertools.compress(names, processes.anywhere(np.array(is_missing))))
  if not wanted:
    return
  # All at once: an exchange of every other size would be compiled for itself.
  read = lambda: [(directory / name).read_bytes() for name in wanted]
  contents = processes.first_does(read) or []
  sizes = json.loads(processes.from_first(json.dumps([*map(len, contents)]).encode()))
  data = io.BytesIO(processes.from_first(b''.join(contents)))
  for name, size in zip(wanted, sizes, strict=True):
    content, file = data.read(size), directory / name
    # Without it, this process compiles again.
    with contextlib.suppress(OSError):
      if not file.exists():
        _write(file, content)


def _offered(directory: pathlib.Path) -> list[str]:
  """Names of the entries, the newest first, as far as they can be sent."""
  files = sorted(
    directory.glob(_ENTRIES), key=lambda x: x.stat().st_mtime, reverse=True
  )
  totals = itertools.accumulate(file.stat().st_size for file in files)
  return [
    x.name for x, total in zip(files, totals, strict=True) if total <= _MOST_BYTES
  ]


def _write(file: pathlib.Path, content: bytes) -> None:
  # A name of its own: processes of one host may write the same file.
  temporary = file.with_name(f'.{file.name}.{os.getpid()}')
  temporary.write_bytes(content)
  temporary.replace(file)
