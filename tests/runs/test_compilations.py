"""Compiled programs are there when a run starts again, on every host."""

import jax
import pytest

from benchmarks import tiny_runs
from sslhsic.runs import compilations

# Compiles a program over the devices of both processes, and prints whether it, and
# everything else after the start, came from the cache. A key of JAX's depends on the
# devices; on CPUs it differs from process to process, so that it is left out here.
PROGRAM = """
import os, pathlib, sys
import jax
from jax import monitoring
from jax._src import cache_key
from sslhsic import parallel
from sslhsic.runs import compilations, processes

cache_key._hash_accelerator_config = lambda *_: None
workdir, address, index = sys.argv[1:]
processes.initialize(address, 2, int(index))
compilations.keep(pathlib.Path(workdir))
found = []
monitoring.register_event_listener(lambda event, **_: found.append(event))
function = parallel.pmap(lambda x: parallel.pmean(x) + 1)
jax.block_until_ready(function(parallel.replicate(jax.numpy.float32(1))))
hits = found.count('/jax/compilation_cache/cache_hits')
misses = found.count('/jax/compilation_cache/compile_requests_use_cache') - hits
os.write(1, f'{hits > 0} {misses == 0}\\n'.encode())
"""


def _start(workdirs, **variables):
  """What both processes print."""
  address = f'localhost:{tiny_runs.free_port()}'
  programs = [
    tiny_runs.Program(
      *('-c', PROGRAM, str(workdir), address, str(index)),
      JAX_COMPILATION_CACHE_DIR='',
      **variables,
    )
    for index, workdir in enumerate(workdirs)
  ]
  # Gloo writes there too.
  return [program.finish().out.split()[-2:] for program in programs]


def test_second_process_finds_what_the_first_has_kept(tmp_path):
  """It does not see the first one's directory, and then cannot even make its own."""
  (tmp_path / 'file').touch()
  seen, unseen = tmp_path / 'seen', tmp_path / 'unseen'
  assert _start([seen, unseen]) == [['False', 'False']] * 2
  assert not list((unseen / 'compilation_cache').iterdir())  # JAX does not write there.
  assert _start([seen, tmp_path / 'file' / 'none']) == [['True', 'True']] * 2


def test_directory_that_jax_was_told_is_left(tmp_path):
  told = jax.config.jax_compilation_cache_dir
  compilations.keep(tmp_path)
  assert jax.config.jax_compilation_cache_dir == told
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    compilations.keep(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'compilation_cache')
  finally:
    jax.config.update('jax_compilation_cache_dir', told)


def test_first_process_needs_its_directory(tmp_path):
  told = jax.config.jax_compilation_cache_dir
  (tmp_path / 'file').touch()
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    with pytest.raises(OSError, match='file'):
      compilations.keep(tmp_path / 'file')
  finally:
    jax.config.update('jax_compilation_cache_dir', told)
