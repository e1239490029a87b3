"""Small runs of pre-training on the digits, in processes of their own.

For programs and tests that kill them, or that compare what they end with.
"""

import atexit
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

from sslhsic.runs import checkpoint, writers

ROOT = pathlib.Path(__file__).resolve().parents[1]

BATCH_SIZE = 32
# A run of 20 steps of a small network, a checkpoint every 4.
TINY = (
  '--config.data.train_split=train[:320]',
  f'--config.training.batch_size={BATCH_SIZE}',
  '--config.loss.ssl_hsic.block_size=4',  # For four devices.
  '--config.training.epochs=2',
  '--config.training.warmup_epochs=0',
  # Compiles in half the time of the digits' own.
  '--config.augment.views=({"policy": "flip"}, {"policy": "flip"})',
  '--config.network.head.hidden_size=16',
  '--config.network.encoder_options='
  '{"blocks_per_group": (1,), "channels_per_group": (4,)}',
  '--config.evaluation.train_split=train[:400]',
  '--config.evaluation.test_split=test[:90]',
  '--config.evaluation.batch_size=80',
  '--config.evaluation.labels_per_class=(1, 10)',
  '--config.runner.checkpoint_every=4',
  '--config.runner.log_every=1',
  '--config.runner.evaluate_every=0',
)
# One of 200 steps.
LONG = (*TINY, '--config.training.epochs=20')

_TIMEOUT_S = 900  # Of a process; none should ever take so long.
_POLL_S = 0.001


class Program:
  """Python in a process of its own, on some fake devices.

  It writes into files: it would wait for ever once nobody reads a pipe that is full.

  Args:
    arguments: of Python.
    devices: how many.
    stdin: what it can read.
    variables: added to the environment of this process.
  """

  def __init__(
    self, *arguments: str, devices: int = 2, stdin: str = '', **variables: str
  ):
    self._out, self._err = (tempfile.NamedTemporaryFile() for _ in range(2))  # noqa: SIM115
    with tempfile.NamedTemporaryFile() as read:
      read.write(stdin.encode())
      read.seek(0)
      self._process = self._begin(arguments, environment(devices) | variables, read)
    atexit.register(self._process.kill)  # If this process fails before it has ended.

  def _begin(
    self, arguments: Sequence[str], variables: dict[str, str], stdin: IO[bytes]
  ) -> subprocess.Popen:
    return subprocess.Popen(
      [sys.executable, *arguments],
      cwd=ROOT,
      env=variables,
      stdin=stdin,
      stdout=self._out,
      stderr=self._err,
    )

  @property
  def out(self) -> str:
    """What it has written to standard output so far."""
    return _content(self._out)

  @property
  def err(self) -> str:
    """What it has written to standard error so far."""
    return _content(self._err)

  @property
  def is_running(self) -> bool:
    """Whether it has not ended yet."""
    return self._process.poll() is None

  def send(self, number: signal.Signals) -> None:
    """Sends a signal, if it is still running."""
    self._process.send_signal(number)

  def wait_until(
    self, condition: Callable[[], bool], seconds: float = _TIMEOUT_S
  ) -> None:
    """Returns when it is true, the process has ended, or the time is over."""
    end = time.monotonic() + seconds
    while self.is_running and not condition() and time.monotonic() < end:
      time.sleep(_POLL_S)

  def end(self, seconds: float = _TIMEOUT_S) -> int:
    """Waits for its end; returns the exit code, or minus the signal that ended it.

    Raises:
      AssertionError: it takes longer than that, and is killed.
    """
    try:
      return self._process.wait(seconds)
    except subprocess.TimeoutExpired as error:
      self._process.kill()
      self._process.wait()
      raise AssertionError(f'no end after {seconds} s: {self.err}') from error

  def finish(self, code: int = 0) -> 'Program':
    """Waits for its end with this exit code; returns itself.

    Raises:
      AssertionError: it ends with another one, or not at all.
    """
    found = self.end()
    if found != code:
      raise AssertionError(f'exit code {found}, expected {code}: {self.err}')
    return self


def environment(devices: int) -> dict[str, str]:
  """The variables of this process, for one with so many fake devices."""
  variables = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    # The last of a flag counts.
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '--xla_backend_optimization_level=0')
    + f' --xla_force_host_platform_device_count={devices}',
    # A process that goes on where another was killed compiles nothing again.
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.jax_cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  # Importing jax has set this one here.
  variables.pop('TF_CPP_MIN_LOG_LEVEL', None)
  return variables


def _content(file: IO[bytes]) -> str:
  """All of it; the place where the process writes next is left alone."""
  size = os.fstat(file.fileno()).st_size
  return os.pread(file.fileno(), size, 0).decode(errors='replace')


def start(
  workdir: pathlib.Path,
  *arguments: str,
  program: Sequence[str] = ('-m', 'experiments.pretrain'),
  devices: int = 2,
  **variables: str,
) -> Program:
  """Starts a program with the configuration of the digits."""
  return Program(
    *program,
    '--config=configs/pretrain/digits.py',
    f'--workdir={workdir}',
    *arguments,
    devices=devices,
    **variables,
  )


def train(workdir: pathlib.Path, *arguments: str, devices: int = 2) -> Program:
  """Trains to the end."""
  return start(workdir, '--mode=train', *arguments, devices=devices).finish()


def start_several(
  workdir: pathlib.Path, *arguments: str, count: int = 2, **settings
) -> list[Program]:
  """Starts processes that train as one, on this machine; settings as for `start`."""
  address = f'--coordinator_address=localhost:{free_port()}'
  shared = ('--mode=train', address, f'--num_processes={count}', *arguments)
  return [
    start(workdir, *shared, f'--process_id={index}', **settings)
    for index in range(count)
  ]


def train_several(workdir: pathlib.Path, *arguments: str) -> None:
  """Trains to the end in two processes with two devices each."""
  for program in start_several(workdir, *arguments):
    program.finish()


def free_port() -> int:
  """A port of this machine that nobody listens at."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def steps(workdir: pathlib.Path) -> list[int]:
  """Of the checkpoints in a working directory, in order."""
  return sorted(checkpoint.steps(workdir / 'checkpoints'))


def differences(workdir: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """In what a run has not ended like another one: arrays, input, logged steps."""
  found, expected = (checkpoint.read(x / 'checkpoints') for x in (workdir, reference))
  as_bytes = lambda x: {
    name: array.tobytes() for name, array in checkpoint.flatten(x.arrays).items()
  }
  there, wanted = as_bytes(found), as_bytes(expected)
  differing = [
    name
    for name in sorted(there.keys() | wanted.keys())
    if there.get(name) != wanted.get(name)
  ]
  if found.step != expected.step:
    differing.append('step')
  if found.host['input_state'] != expected.host['input_state']:
    differing.append('input_state')
  logged = lambda path: [
    (row['step'], row['loss']) for row in writers.read(path) if 'loss' in row
  ]
  if logged(workdir) != logged(reference):
    differing.append('metrics.jsonl')
  return differing
