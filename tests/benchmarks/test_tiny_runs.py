"""Processes that are watched: what they write, how they end."""

import signal

import pytest

from benchmarks import tiny_runs


def test_program_that_writes_a_lot_does_not_wait_for_a_reader():
  program = tiny_runs.Program('-c', 'import sys; sys.stderr.write("x" * 2**20)')
  assert len(program.finish().err) == 2**20


def test_program_reads_and_writes():
  program = tiny_runs.Program('-c', 'print(input() + input())', stdin='a\nb\n')
  assert program.finish().out == 'ab\n'


def test_output_can_be_read_while_it_is_written():
  code = 'import time; print("first", flush=True); time.sleep(1); print("second")'
  program = tiny_runs.Program('-c', code)
  program.wait_until(lambda: program.out == 'first\n')
  assert program.is_running
  assert program.finish().out == 'first\nsecond\n'


def test_other_exit_code_is_an_error_with_what_was_written():
  with pytest.raises(AssertionError, match='exit code 3, expected 0: why'):
    tiny_runs.Program(
      '-c', 'import sys; print("why", file=sys.stderr); sys.exit(3)'
    ).finish()


def test_program_that_does_not_end_is_killed():
  program = tiny_runs.Program('-c', 'import time; time.sleep(600)')
  with pytest.raises(AssertionError, match='no end after'):
    program.end(seconds=0.2)
  assert program.end() == -signal.SIGKILL
