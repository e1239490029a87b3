"""A training step in a process of its own, measured when it is asked to be.

`python -m benchmarks.step_process SETTINGS` with the fields of `Settings` as JSON
compiles a step and waits for requests, so that several processes can compile at once
and then take turns. A process that fails or runs out of memory takes no other with it.

Requests are lines of JSON on standard input, replies lines of JSON on standard output:
'compile' is answered first, unasked; {'run': {...}} and {'profile': DIRECTORY} follow.
A reply with 'error' is the last one.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Self

import ml_collections
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is measured.

  Attributes:
    case: in `step.CASES`.
    method: in `methods.METHODS`.
    batch_size: images per device; 0: the number of the case.
    precision: of the networks.
    framework: 'jax' or 'torch'.
    is_plain: whether augmentation and optimiser are those that the step in PyTorch has:
      none but the crop, and SGD.
    variant: in `step_variants.VARIANTS`, a change of the networks.
    folder: where synthetic images are.
    num_workers: processes of the loader.
    network: replaces fields of the case's `config.network`.
  """

  case: str
  method: str
  batch_size: int = 0
  precision: str = 'bfloat16'
  framework: str = 'jax'
  is_plain: bool = False
  variant: str = 'none'
  folder: str = '/tmp'
  num_workers: int = 0
  network: dict[str, Any] = dataclasses.field(default_factory=dict)


class StepError(Exception):
  """A process has failed, or has not answered in time."""


class StepProcess:
  """The side that asks.

  Args:
    settings: what is measured.
    log: file that gets what the process writes.
    variables: added to the environment of this process.
  """

  def __init__(self, settings: Settings, log: pathlib.Path, **variables: str):
    self.settings, self._log = settings, log
    self._replies: queue.Queue[str | None] = queue.Queue()
    with log.open('a') as stderr:
      self._process = subprocess.Popen(
        [
          sys.executable,
          '-m',
          'benchmarks.step_process',
          json.dumps(dataclasses.asdict(settings)),
        ],
        cwd=ROOT,
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        process_group=0,
      )
    threading.Thread(target=self._read, daemon=True).start()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _read(self) -> None:
    for line in self._process.stdout:
      self._replies.put(line)
    self._replies.put(None)

  def reply(self, seconds: float) -> dict[str, Any]:
    """The next reply.

    Raises:
      StepError: it is an error, or does not come in this time.
    """
    try:
      line = self._replies.get(timeout=max(seconds, 0))
    except queue.Empty:
      self.close()
      raise StepError(f'no reply within {seconds:.0f} s') from None
    if line is None:
      raise StepError(f'exit code {self._process.wait()}: {_last_line(self._log)}')
    answer = json.loads(line)
    if 'error' in answer:
      raise StepError(answer['error'])
    return answer

  def run(self, seconds: float, *, on_device: bool, timeout: float) -> dict[str, Any]:
    """Takes steps for some time; see `step.Subject.run`."""
    self._ask({'run': {'seconds': seconds, 'on_device': on_device}})
    return self.reply(timeout)

  def profile(self, directory: pathlib.Path, *, timeout: float) -> dict[str, Any]:
    """Writes a trace of some steps into a directory."""
    self._ask({'profile': str(directory)})
    return self.reply(timeout)

  def _ask(self, request: dict) -> None:
    with contextlib.suppress(BrokenPipeError):  # The reply says why.
      self._process.stdin.write(json.dumps(request) + '\n')
      self._process.stdin.flush()

  def close(self) -> None:
    """Ends the process and its workers."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()


def _last_line(log: pathlib.Path) -> str:
  lines = log.read_text(errors='replace').strip().splitlines()
  return lines[-1][-300:] if lines else 'nothing was written'


# The process itself.


def config_of(settings: Settings) -> ml_collections.ConfigDict:
  """The configuration of a measurement."""
  from benchmarks import methods, step

  name, chosen = methods.METHODS[settings.method]
  config = step.config_of(
    step.CASES[settings.case],
    pathlib.Path(settings.folder),
    batch_size=settings.batch_size,
    loss=name,
    precision=settings.precision,
  )
  config.loss[name].update(chosen)
  config.data.num_workers = settings.num_workers
  config.network.update(settings.network)
  if settings.is_plain:
    step.make_plain(config)
  return config


def serve(
  settings: Settings, requests: Iterable[str], answer: Callable[[dict], None]
) -> None:
  """Compiles, then answers requests until there are no more."""
  from benchmarks import step_variants

  if settings.framework == 'torch':
    from benchmarks import step_torch as step  # PyTorch is no dependency.
  else:
    from benchmarks import step
  # The step is traced while the networks are changed.
  with step_variants.VARIANTS[settings.variant]():
    subject = step.Subject(config_of(settings))
    answer(subject.compile())
  for number, line in enumerate(requests):
    if not number:
      subject.warm_up()
    request = json.loads(line)
    if 'run' in request:
      answer(subject.run(**request['run']))
    else:
      answer(_profile(subject, request['profile']))


def _profile(subject, directory: str, seconds: float = 0.0) -> dict[str, Any]:
  import jax

  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  options.host_tracer_level = 1
  start = time.perf_counter()
  with jax.profiler.trace(directory, profiler_options=options):
    subject.run(seconds, on_device=True)
  return {'profile_s': time.perf_counter() - start}


def main() -> None:
  """Measures what the first argument says."""
  # Libraries write to standard output too; the replies get it for themselves.
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(reply: dict) -> None:
    print(json.dumps(reply), file=replies, flush=True)

  flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags.
  try:
    serve(Settings(**json.loads(sys.argv[1])), sys.stdin, answer)
  except Exception as error:
    traceback.print_exc()
    answer({'error': f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'})


if __name__ == '__main__':
  main()
