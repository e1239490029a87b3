"""Programs in forks of one process that has imported what they need.

That takes longer than most of them. They run as those of `tiny_runs` do, but do not see
the variables that are read when Python starts or JAX is imported.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from unittest import mock

from benchmarks import tiny_runs

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['tests.experiments.preloaded'])


class Program(tiny_runs.Program):
  """A program of `experiments`, or code, in a fork of its own."""

  def _begin(self, arguments, variables, stdin):
    del stdin  # It has none.
    streams = self._out.name, self._err.name
    process = _CONTEXT.Process(target=_run, args=(arguments, variables, streams))
    # The first one starts the process that is forked.
    with mock.patch.dict(os.environ, tiny_runs.environment(1), clear=True):
      process.start()
    # It is no worker of the tests, which count theirs.
    multiprocessing.process._children.discard(process)
    return _Process(process)


@contextlib.contextmanager
def forked():
  """A context in which all small runs are forks."""
  with mock.patch.object(tiny_runs, 'Program', Program):
    yield


class _Process:
  """What `tiny_runs.Program` needs of `subprocess.Popen`."""

  def __init__(self, process):
    self._process = process

  def poll(self):
    return self._process.exitcode

  def wait(self, timeout=None):
    self._process.join(timeout)
    if self.poll() is None:
      raise subprocess.TimeoutExpired('fork', timeout)
    return self.poll()

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self._process.pid, number)

  def kill(self):
    self._process.kill()


def _run(arguments, variables, streams):
  """Does what Python does with such arguments."""
  assert 'tests.experiments.preloaded' in sys.modules, 'nothing was imported before'
  multiprocessing.process._parent_process = None  # It is the main process itself.
  for number, name in enumerate(streams, 1):
    os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
  os.chdir(tiny_runs.ROOT)
  os.environ.clear()
  os.environ.update(variables)
  option, program, *sys.argv[1:] = arguments
  try:
    if option == '-m':
      runpy.run_module(program, run_name='__main__', alter_sys=True)
    else:
      exec(program, {'__name__': '__main__'})
  finally:
    # In the order of Python, which a fork does not keep.
    threading._shutdown()
    atexit._run_exitfuncs()
