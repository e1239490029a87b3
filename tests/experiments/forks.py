"""Runs a program many times, importing what it needs only once.

python -m tests.experiments.forks PROGRAM < RUNS

Each line of standard input is a run, a JSON list: a file for what it prints to standard
error, and the arguments. Each runs in a fork of its own, made before JAX has started
any thread. The exit codes are printed as a JSON list.
"""

import importlib
import json
import os
import runpy
import sys


def main():
  program = sys.argv[1]
  importlib.import_module(program)
  del sys.modules[program]  # It is to run anew, as the main module.
  codes = [_run(program, *json.loads(line)) for line in sys.stdin]
  print(json.dumps(codes))


def _run(program, error_file, *arguments):
  child = os.fork()
  if child:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  os.dup2(os.open(error_file, os.O_WRONLY | os.O_CREAT), 2)
  sys.argv = [program, *arguments]
  runpy.run_module(program, run_name='__main__', alter_sys=True)
  sys.exit(0)


if __name__ == '__main__':
  main()
