"""Runs programs, importing what they need only once: that takes longer than they do.

`python -m tests.experiments.forks` reads runs from standard input, each a line with a
JSON list: files for what it prints to standard output and to standard error, the
program, and its arguments. Each runs in a fork of its own, made before JAX has started
any thread. When it has ended, its exit code is printed.
"""

import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile

# No program with flags of its own: a flag can be defined only once.
PROGRAMS = ('pretrain', 'linear_eval', 'knn', 'transfer')
MODULES = ('evaluation.embed', 'report.build', 'weights.from_run')
_MAX_S = 900  # Of a program; none should ever take so long.


class Forks:
  """Starts programs as a user does, on some fake devices, one after the other.

  Args:
    devices: how many.
  """

  def __init__(self, devices=1):
    # Not above: it imports JAX, and `experiments` has to come before.
    from benchmarks import tiny_runs

    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tests.experiments.forks'],
      cwd=tiny_runs.ROOT,
      env=tiny_runs.environment(devices),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __call__(self, program, *arguments):
    """Exit code, standard output and standard error of a program."""
    with tempfile.TemporaryDirectory() as directory:
      files = [pathlib.Path(directory, name) for name in ('out', 'err')]
      run = [*map(str, files), f'experiments.{program}', *map(str, arguments)]
      print(json.dumps(run), file=self._process.stdin, flush=True)
      code = int(self._process.stdout.readline())
      return code, *(file.read_text() for file in files)

  def close(self):
    """Ends the process."""
    self._process.communicate()


def main():
  # First: `experiments` sets variables before JAX is imported.
  for name in PROGRAMS:
    importlib.import_module(f'experiments.{name}')
  for name in MODULES:
    importlib.import_module(f'sslhsic.{name}')
  for name in PROGRAMS:
    del sys.modules[f'experiments.{name}']  # They are to run anew, as main modules.
  for line in sys.stdin:
    print(_run(*json.loads(line)), flush=True)


def _run(out, err, program, *arguments):
  child = os.fork()
  if child:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  signal.alarm(_MAX_S)  # Ends the fork, if it hangs.
  for number, file in ((1, out), (2, err)):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
  sys.argv = [program, *arguments]
  runpy.run_module(program, run_name='__main__', alter_sys=True)
  sys.exit(0)


if __name__ == '__main__':
  main()
