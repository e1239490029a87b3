"""A measurement under a time budget: what it has found so far is always on disk."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import accelerator_tables, step_process

ROOT = step_process.ROOT
# XLA's default miscompiles some dot products. A reference is compiled soon, if slow.
_CPU_FLAGS = '--xla_cpu_experimental_ynn_fusion_type='
# Kernels are chosen by their speed, without a check of what each of them computed.
_AUTOTUNING_FLAGS = '--xla_gpu_autotune_level=2'
_REFERENCE_FLAGS = '--xla_backend_optimization_level=0'


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is measured on a device.

  Attributes:
    case: in `step.CASES`, the network that matters most.
    batch_sizes: tried for it until one fits.
    largest_batch_size: tried last, if not 0.
    compare_batch_size: at which JAX and PyTorch take turns; both are in memory then.
    methods: in `methods.METHODS`; the first is profiled and varied.
    small_case, small_batch_size, small_methods: likewise, measured after that.
    loss_batch_sizes, dim: of the loss alone.
    checks: of `accelerator.CHECKS`.
    checked_methods: for the gradients; empty: one of every loss and estimator.
    seconds: of a measurement.
    first_wave_s: seconds for the checks and the first compilations.
    rounds: of measurements that take turns.
    num_workers: processes of a loader.
    parallel: processes that compile at the same time.
    at_once: other steps that are compiled, then measured, before the next.
    network: replaces fields of a case's `config.network`.
    variants: whether changes of the networks are tried.
  """

  case: str
  batch_sizes: tuple[int, ...]
  largest_batch_size: int
  compare_batch_size: int
  methods: tuple[str, ...]
  small_case: str | None
  small_batch_size: int
  small_methods: tuple[str, ...]
  loss_batch_sizes: tuple[int, ...]
  dim: int
  checks: tuple[str, ...]
  checked_methods: tuple[str, ...]
  seconds: float
  first_wave_s: float
  rounds: int
  num_workers: int
  parallel: int
  at_once: int
  network: dict[str, Any]
  variants: bool


class Run:
  """Results of a run, and the time that is left.

  Attributes:
    result: what was found, of JSON types; written after every change.
    scratch: a directory of files that are not kept.
  """

  def __init__(self, output: pathlib.Path, minutes: float, with_torch: bool = True):
    self._start = time.monotonic()
    self._deadline = self._start + 60 * minutes
    self._output = output
    self._lock = threading.Lock()
    self._scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    self.scratch = pathlib.Path(self._scratch.name)
    self.with_torch = with_torch
    self.result: dict[str, Any] = {'benchmark': 'accelerator', 'skipped': {}}
    output.mkdir(parents=True, exist_ok=True)
    self._children: list[subprocess.Popen] = []

  def __enter__(self) -> 'Run':
    return self

  def __exit__(self, *_: object) -> None:
    for child in self._children:
      _kill(child)
    self.write()
    self._scratch.cleanup()

  @property
  def left(self) -> float:
    """Seconds until the run must have ended."""
    return self._deadline - time.monotonic()

  @property
  def is_cpu(self) -> bool:
    """Whether the device is a CPU."""
    return self.result['device']['platform'] == 'cpu'

  def log(self, text: str) -> None:
    """Prints a line with the seconds since the start."""
    print(f'{time.monotonic() - self._start:6.1f} s  {text}', flush=True)

  def write(self) -> None:
    """Writes `accelerator.json`, `.md` and `.log`, each whole or not at all.

    The log holds the end of what every process wrote to standard error.
    """
    with self._lock:
      self.result['elapsed_s'] = time.monotonic() - self._start
      files = {
        'accelerator.json': json.dumps(self.result, indent=1) + '\n',
        'accelerator.md': accelerator_tables.markdown(self.result),
        'accelerator.log': self._logs(),
      }
      for name, content in files.items():
        partial = self._output / f'{name}.tmp'
        partial.write_text(content)
        partial.replace(self._output / name)

  def _logs(self, characters: int = 6000) -> str:
    logs = sorted(self.scratch.glob('*.log'))
    return '\n'.join(
      f'== {log.stem}\n{log.read_text(errors="replace")[-characters:]}' for log in logs
    )

  def skip(self, name: str, why: str) -> None:
    """Says that something was not measured."""
    self.result['skipped'][name] = why
    self.log(f'{name}: {why}')
    self.write()

  def section(self, name: str, seconds: float, measure: Callable[[], None]) -> None:
    """Measures, if there is that much time; whatever it raises is written down."""
    if self.left < seconds:
      self.skip(
        name, f'needs about {seconds:.0f} s, {max(self.left, 0):.0f} s are left'
      )
      return
    self.log(name)
    try:
      measure()
    except Exception as error:
      traceback.print_exc()
      self.skip(name, f'{type(error).__name__}: {" ".join(str(error).split())[:300]}')
    self.write()

  # Processes

  def variables(self, gpu_flags: str = '', *, on_cpu: bool = False) -> dict[str, str]:
    """The environment of a process that computes.

    Args:
      gpu_flags: of XLA, where it computes on a GPU.
      on_cpu: whether it computes on the CPU though there is an accelerator.
    """
    is_cpu = on_cpu or self.result.get('device', {}).get('platform') == 'cpu'
    flags = os.environ.get('XLA_FLAGS', '')
    if is_cpu:
      flags += f' {_CPU_FLAGS} --xla_force_host_platform_device_count=1'
    if on_cpu:
      flags += f' {_REFERENCE_FLAGS}'
    if not is_cpu:
      flags += f' {_AUTOTUNING_FLAGS} {gpu_flags}'
    return {
      'JAX_PLATFORMS': 'cpu' if on_cpu else os.environ.get('JAX_PLATFORMS', ''),
      'XLA_FLAGS': flags.strip(),
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.95',
      'JAX_COMPILATION_CACHE_DIR': os.environ.get(
        'JAX_COMPILATION_CACHE_DIR', str(self.scratch / 'jax_cache')
      ),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'TORCHINDUCTOR_CACHE_DIR': str(self.scratch / 'torch_cache'),
    }

  def start(
    self, settings: step_process.Settings, **variables: str
  ) -> step_process.StepProcess:
    """Starts a process that measures a step."""
    name = f'{settings.case}_{settings.method}_{settings.framework}'
    log = self.scratch / f'{name.replace(", ", "_").replace(" ", "_")}.log'
    # The process of PyTorch uses JAX for its configuration only.
    shared = self.variables(on_cpu=settings.framework == 'torch')
    return step_process.StepProcess(settings, log, **(shared | variables))

  def program(
    self,
    *arguments: str,
    seconds: float,
    flags: str = '',
    on_cpu: bool = False,
    each_line: Callable[[str], None] | None = None,
    number: signal.Signals = signal.SIGKILL,
  ) -> str:
    """Runs Python with these arguments; returns the last line that it prints.

    Args:
      *arguments: of Python.
      seconds: it is ended after that.
      flags: of XLA for a GPU.
      on_cpu: whether it computes on the CPU.
      each_line: is given every line when it is printed.
      number: of the signal that ends it after that time.

    Raises:
      StepError: it has failed, or was killed.
    """
    name = '_'.join(x.rpartition('.')[2][:20] for x in arguments[1:3])
    index = len(self._children)
    errors = self.scratch / f'{index}_{re.sub(r"[^a-z_]", "", name)}.log'
    with errors.open('w') as stderr:
      child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | self.variables(flags, on_cpu=on_cpu),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        process_group=0,
      )
    self._children.append(child)
    timer = threading.Timer(max(seconds, 1), _kill, [child, number])
    timer.start()
    last = ''
    for line in child.stdout:
      last = line.strip()
      if each_line:
        each_line(last)
    timer.cancel()
    if child.wait():
      lines = errors.read_text(errors='replace').strip().splitlines() or ['']
      raise step_process.StepError(f'exit code {child.returncode}: {lines[-1][-300:]}')
    return last


def _kill(child: subprocess.Popen, number: signal.Signals = signal.SIGKILL) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(child.pid, number)


def compile_all(
  run: Run, wanted: Sequence[step_process.Settings], seconds: float
) -> list[dict[str, Any]]:
  """Compiles steps into the compilation cache, several at a time.

  Args:
    run: whose time it takes.
    wanted: settings.
    seconds: after which all are given up.

  Returns:
    What `step.Subject.compile` returned for each, or {'error': why}.
  """
  end = time.monotonic() + min(seconds, run.left)

  def compile_one(settings: step_process.Settings) -> dict[str, Any]:
    # Memory that is tried out while compiling is given back, for the others.
    allocator = {} if run.is_cpu else {'XLA_PYTHON_CLIENT_ALLOCATOR': 'platform'}
    name = f'{settings.case}, {settings.method}, {settings.batch_size}'
    try:
      with run.start(settings, **allocator) as process:
        compiled = process.reply(end - time.monotonic())
    except step_process.StepError as error:
      run.log(f'not compiled: {name}: {error}')
      return {'error': str(error)}
    run.log(f'compiled in {compiled["compile_s"]:.0f} s: {name}, {settings.variant}')
    return compiled

  with concurrent.futures.ThreadPoolExecutor(run.result['plan']['parallel']) as pool:
    return list(pool.map(compile_one, wanted))
