"""Correctness and speed on an accelerator, in a few minutes and without network.

Run `make accelerator`, or `python -m benchmarks.accelerator --output_dir=DIR`. In order
of value, each in processes of its own:

  checks       published values of HSIC, gradients against the CPU, kill and resume;
               meanwhile the first steps are compiled, several at a time
  comparison   the same step in JAX and in PyTorch, in turns
  step         ResNet-50 at 224 px, with JPEGs and with a batch that is on the device
               already; a profile of it
  loss         time of every loss alone by batch size
  others       changes of the step, other losses, ResNet-18 at 32 px, a larger batch
  fashion_mnist  for the time that is left, if it is there

`accelerator.json` and `accelerator.md` in the output are written anew after each
measurement: a run that is killed loses nothing. What fails, or would not fit into the
time left, is named. On a CPU, or with --small, everything is small.
"""

import collections
import concurrent.futures
import dataclasses
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks import accelerator_checks, kernel_trace, step, step_variants
from benchmarks.accelerator_run import Plan, Run, compile_all
from benchmarks.step_process import ROOT, Settings, StepError, StepProcess

_OUTPUT = flags.DEFINE_string('output_dir', 'runs/accelerator', 'For the tables.')
_MINUTES = flags.DEFINE_float('minutes', 8.5, 'After which nothing is begun any more.')
_SMALL = flags.DEFINE_bool('small', False, 'Whether to measure what a CPU can.')
_SECTIONS = flags.DEFINE_list('sections', [], 'As in the list above; none: all.')
_COMPARE = flags.DEFINE_bool('compare', True, 'With PyTorch, if it is there.')
_FASHION_MNIST = flags.DEFINE_string('fashion_mnist', '', 'Directory of its files.')

_GIB = 2**30
MAIN, BYOL = 'ssl_hsic, pairs', 'byol'
METHODS = (MAIN, 'ssl_hsic, exact', 'ssl_hsic, 512 stratified', 'info_nce', BYOL)
SECTIONS = ('checks', 'comparison', 'step', 'loss', 'others', 'fashion_mnist')
CHECKS = ('golden', 'gradients', 'resume', 'resume_deterministic')
VARIANTS = tuple(name for name in step_variants.VARIANTS if name != 'none')
_PROBE = """
import json, jax
device = jax.devices()[0]
memory = device.memory_stats() or {}
print(json.dumps({
  'platform': device.platform, 'kind': device.device_kind,
  'bytes': memory.get('bytes_limit'),
  'versions': {'jax': jax.__version__},
}))
"""


def plan(device: dict[str, Any], *, small: bool) -> Plan:
  """What to measure on a device."""
  cores = os.cpu_count()
  if small or device['platform'] == 'cpu':
    return small_plan()
  is_large = (device['bytes'] or 0) > 110 * _GIB
  return Plan(
    case='resnet50_224',
    batch_sizes=(512, 256) if is_large else (256, 128),
    largest_batch_size=1024 if is_large else 512,
    compare_batch_size=256 if is_large else 128,
    methods=METHODS,
    small_case='resnet18_32',
    small_batch_size=8192 if is_large else 4096,
    small_methods=(MAIN, BYOL, 'ssl_hsic, exact'),
    loss_batch_sizes=(512, 2048, 8192, 32768),
    dim=256,
    checks=CHECKS,
    checked_methods=(),
    seconds=4.0,
    first_wave_s=170.0,
    rounds=3,
    num_workers=cores - 1,
    parallel=max(1, cores * 3 // 4),
    at_once=6,
    network={},
    variants=True,
  )


def small_plan() -> Plan:
  """What to measure on a CPU: a tiny network on the digits, for moments."""
  return Plan(
    case='digits',
    batch_sizes=(32,),
    largest_batch_size=0,
    compare_batch_size=32,
    methods=(MAIN,),
    small_case=None,
    small_batch_size=0,
    small_methods=(),
    loss_batch_sizes=(32, 64),
    dim=16,
    checks=('golden', 'gradients'),
    checked_methods=(MAIN, BYOL),
    seconds=0.2,
    first_wave_s=300.0,
    rounds=2,
    num_workers=0,
    parallel=2,
    at_once=6,
    network={
      'encoder_options': {'blocks_per_group': (1,), 'channels_per_group': (4,)},
      'head': {'hidden_size': 8, 'output_size': 4},
    },
    variants=False,
  )


class Accelerator:
  """The sections, in order.

  Args:
    run: where results go.
    fashion_mnist: directory of the data set, or nothing.
  """

  def __init__(self, run: Run, fashion_mnist: str = ''):
    self._run = run
    self._fashion_mnist = fashion_mnist
    self._only: Sequence[str] = SECTIONS
    self._torch: StepProcess | None = None
    self._baseline: dict[str, Any] | None = None
    self._compiled: dict[tuple, dict[str, Any]] = {}

  def measure(self, *, small: bool, only: Sequence[str] = ()) -> None:
    """Measures everything that there is time for.

    Args:
      small: whether to measure what a CPU can.
      only: of `SECTIONS`; none: all.
    """
    run = self._run
    self._only = only or SECTIONS
    self.probe(small)
    run.section('checks, and the first steps are compiled', 30, self.start_checks)
    for name, title, seconds, measure in (
      ('comparison', 'comparison with PyTorch', 25, self.compare),
      ('step', 'step', 30, self.main_step),
      ('loss', 'loss alone', 15, self.loss_alone),
      ('others', 'other steps', 90 if self._plan.small_case else 0, self.other_steps),
      ('fashion_mnist', 'Fashion-MNIST', 60, self.fashion_mnist),
    ):
      if name in self._only:
        run.section(title, seconds, measure)

  # The device

  def probe(self, small: bool) -> None:
    """Finds out what the device is, and plans accordingly."""
    run = self._run
    device = json.loads(run.program('-c', _PROBE, seconds=90))
    run.result['device'] = device | {'cores': os.cpu_count()}
    self._plan = plan(device, small=small)
    run.result['plan'] = dataclasses.asdict(self._plan)
    for name in filter(None, (self._plan.case, self._plan.small_case)):
      step.write_images(step.CASES[name], run.scratch)
    run.log(f'{device["kind"]}, {self._plan.case} at {self._plan.batch_sizes}')
    run.write()

  # Checks, while the first steps are compiled

  def start_checks(self) -> None:
    """Compiles what is measured first; checks meanwhile."""
    run, plan = self._run, self._plan
    end = time.monotonic() + min(plan.first_wave_s, run.left)
    wanted = []
    if 'comparison' in self._only:
      wanted.append(self._plain('jax'))
      if run.with_torch and importlib.util.find_spec('torch'):
        self._torch = run.start(self._plain('torch'))
    if 'step' in self._only:
      wanted.append(self._settings(plan.batch_sizes[0], plan.methods[0]))
    checks = {'golden': self._golden, 'gradients': self._gradients}
    checks |= {name: self._resume for name in CHECKS if 'resume' in name}
    run.result['checks'] = {}
    step.flops_per_image(step.CASES[plan.case])  # For later; it takes a moment.
    with concurrent.futures.ThreadPoolExecutor(len(CHECKS)) as pool:
      futures = {
        name: pool.submit(checks[name], name, end - time.monotonic())
        for name in plan.checks
        if 'checks' in self._only
      }
      # Nothing can be measured without these.
      self._compile(wanted, plan.first_wave_s + 110)
      for name, future in futures.items():
        run.section(f'check: {name}', 0, future.result)

  def _golden(self, name: str, seconds: float) -> None:
    found = self._check('golden', seconds=seconds)
    self._run.result['checks'][name] = found

  def _gradients(self, name: str, seconds: float) -> None:
    run = self._run
    files = [run.scratch / f'{place}.npz' for place in ('device', 'cpu')]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      both = pool.map(
        lambda file: self._check(
          'gradients',
          str(file),
          *self._plan.checked_methods,
          seconds=seconds,
          on_cpu=file.stem == 'cpu',
        ),
        files,
      )
      for failed in both:
        for method, why in failed['failed'].items():
          run.skip(f'gradient of {method}', why)
    run.result['checks'][name] = accelerator_checks.compare(*files)

  def _resume(self, name: str, seconds: float) -> None:
    flag = accelerator_checks.DETERMINISTIC if name.endswith('deterministic') else ''
    self._run.result['checks'][name] = self._check('resume', flag, seconds=seconds)

  def _check(self, *arguments: str, seconds: float, on_cpu: bool = False) -> dict:
    last = self._run.program(
      '-m',
      'benchmarks.accelerator_checks',
      *arguments,
      seconds=seconds,
      on_cpu=on_cpu,
    )
    return json.loads(last)

  # Settings of steps

  def _plain(self, framework: str, *, small: bool = False) -> Settings:
    """The step that PyTorch has too."""
    plan = self._plan
    batch_size = plan.small_batch_size // 4 if small else plan.compare_batch_size
    case = plan.small_case if small else plan.case
    return self._settings(
      batch_size, BYOL, case=case, framework=framework, is_plain=True
    )

  def _settings(self, batch_size: int, method: str, **others) -> Settings:
    plan = self._plan
    shared = {
      'case': plan.case,
      'folder': str(self._run.scratch),
      'num_workers': plan.num_workers,
      'network': plan.network,
    }
    return Settings(method=method, batch_size=batch_size, **(shared | others))

  def _compile(self, wanted: Sequence[Settings], seconds: float) -> None:
    """Compiles steps into the cache and keeps what that said."""
    done = compile_all(self._run, wanted, seconds)
    for settings, compiled in zip(wanted, done, strict=True):
      self._compiled[_key(settings)] = compiled
      if 'error' in compiled:
        self._run.skip(f'compiling {_name(settings)}', compiled['error'])
      elif not self._fits(settings):
        self._run.skip(_name(settings), 'needs more memory')

  def _fits(self, settings: Settings) -> bool:
    """Whether a step was compiled and, as far as is known, has the memory it needs."""
    compiled = self._compiled.get(_key(settings), {'error': ''})
    limit = self._run.result['device']['bytes']
    needed = compiled.get('device_bytes')
    # The processes that start meanwhile need some too.
    return 'error' not in compiled and not (
      limit and needed and needed > limit - 4 * _GIB
    )

  # JAX and PyTorch in turns

  def compare(self, *, small: bool = False) -> None:
    """Rounds of JAX and PyTorch, each with a loader and without."""
    run = self._run
    ours = run.start(self._plain('jax', small=small))
    theirs, self._torch = self._torch, None
    row = {'case': ours.settings.case, 'batch_size': ours.settings.batch_size}
    run.result.setdefault('comparison', []).append(row)
    processes = {'jax': ours} | ({'torch': theirs} if theirs else {})
    for name, process in list(processes.items()):
      try:
        row[name] = process.reply(min(120, run.left)) | {
          'on_device': [],
          'with_loader': [],
          'data_wait': [],
        }
      except StepError as error:
        run.skip(f'{row["case"]} in {name}', str(error))
        del processes[name]
    compiled = self._compiled.get(_key(ours.settings), {})
    row.get('jax', {}).update(compile_s=compiled.get('compile_s'))
    for _ in range(self._plan.rounds):
      for name, process in list(processes.items()):
        try:
          _take_turn(process, row[name], self._plan.seconds / 2, run.left)
        except StepError as error:
          run.skip(f'{row["case"]} in {name}', str(error))
          del processes[name]
        _set_ratio(row)
        run.write()
    for process in (ours, theirs):
      if process:
        process.close()
    run.log(json.dumps(row))

  # The step that matters most, its profile

  def main_step(self) -> None:
    """Measures and profiles the first batch size that fits, also with a loader.

    It is the baseline of what comes later.
    """
    run = self._run
    for batch_size in self._plan.batch_sizes:
      settings = self._settings(batch_size, self._plan.methods[0])
      if _key(settings) not in self._compiled:
        self._compile([settings], self._plan.first_wave_s)
      if not self._fits(settings):
        continue
      try:
        with run.start(settings) as process:
          self._baseline = self._measure(process)
          run.section('profile', 5, lambda p=process: self._profile(p))
          run.section('loader', 15, lambda p=process: self._with_loader(p))
        return
      except StepError as error:
        run.skip(_name(settings), str(error))
    raise StepError('no batch size fits')

  def _measure(self, process: StepProcess) -> dict[str, Any]:
    """Measures a step that was started; adds a row to the table of steps."""
    run, settings = self._run, process.settings
    compiled = process.reply(min(120, run.left))
    compiled |= self._compiled.get(_key(settings), {})
    found = process.run(self._plan.seconds, on_device=True, timeout=min(120, run.left))
    row = {
      'case': settings.case,
      'method': settings.method,
      'batch_size': settings.batch_size,
      **compiled,
      'on_device': found['images_per_second'],
      'peak_bytes': found['peak_bytes'],
    }
    row |= self._utilisation(settings, row['on_device'])
    if settings.variant == 'none':
      run.result.setdefault('steps', []).append(row)
    run.log(json.dumps(row))
    run.write()
    return row

  def _with_loader(self, process: StepProcess) -> None:
    found = process.run(
      2 * self._plan.seconds, on_device=False, timeout=min(120, self._run.left)
    )
    self._baseline |= {
      'with_loader': found['images_per_second'],
      'data_wait_share': found['data_wait_share'],
      'peak_bytes': found['peak_bytes'],
    }
    self._run.log(json.dumps(found))

  def _utilisation(
    self, settings: Settings, images_per_second: float
  ) -> dict[str, Any]:
    flops = images_per_second * step.flops_per_image(step.CASES[settings.case])
    kind = self._run.result['device']['kind']
    return {
      'tflops': flops / 1e12,
      'utilisation': step.utilisation(flops, settings.precision, kind),
    }

  def _profile(self, process: StepProcess) -> None:
    directory = self._run.scratch / 'profile'
    process.profile(directory, timeout=min(60, self._run.left))
    settings = process.settings
    self._run.result['profile'] = {
      'case': settings.case,
      'method': settings.method,
      'batch_size': settings.batch_size,
      **kernel_trace.summary(kernel_trace.read(directory)),
    }

  # The loss alone

  def loss_alone(self) -> None:
    """Measures every loss at every batch size."""
    run, plan = self._run, self._plan
    rows = []

    def add(line: str) -> None:
      run.result['loss'] = {'rows': rows}
      row = json.loads(line)
      if self._baseline and 'milliseconds' in row:
        step_ms = 1e3 * row['batch_size'] / self._baseline['on_device']
        row['share'] = row['milliseconds'] / step_ms
      rows.append(row)
      run.write()

    run.program(
      '-m',
      'benchmarks.loss_time',
      f'--batch_sizes={",".join(map(str, plan.loss_batch_sizes))}',
      f'--dim={plan.dim}',
      f'--rounds={plan.rounds}',
      f'--round_seconds={plan.seconds / 100}',
      f'--threads={plan.parallel}',
      flags='--xla_gpu_enable_triton_gemm=false',
      seconds=min(150, run.left),
      each_line=add,
    )

  # Everything else

  def other_steps(self) -> None:
    """Variants, other losses, the small case and the largest batch.

    A few at a time are compiled, then measured: a run that ends early has the first.
    """
    plan, run = self._plan, self._run
    others = self._others()
    for first in range(0, len(others), plan.at_once):
      group = others[first : first + plan.at_once]
      self._compile(group, min(150, run.left / 2))
      ready = [settings for settings in group if self._fits(settings)]
      for process in self._started(ready):
        settings = process.settings
        measure = lambda p=process: self._other(p)
        run.section(_name(settings), 15, measure)
        process.close()
    if plan.small_case and run.with_torch and importlib.util.find_spec('torch'):
      plain = [self._plain(framework, small=True) for framework in ('jax', 'torch')]
      self._torch = run.start(plain[1])
      self._compile(plain[:1], min(120, run.left / 2))
      run.section('comparison, small', 25, lambda: self.compare(small=True))

  def _others(self) -> list[Settings]:
    """Steps in order of value."""
    plan = self._plan
    small = [
      self._settings(plan.small_batch_size, method, case=plan.small_case)
      for method in plan.small_methods
    ]
    if not self._baseline:
      why = 'they are compared with the main step, which was not measured'
      self._run.skip('variants, other losses, the largest batch', why)
      return small
    size, main = self._baseline['batch_size'], plan.methods[0]
    losses = [self._settings(size, method) for method in plan.methods[1:]]
    variants = [
      self._settings(size, main, variant=variant)
      for variant in VARIANTS
      if plan.variants
    ]
    largest = [self._settings(plan.largest_batch_size, main)]
    return [
      *variants[:2],
      *losses[:3],
      *small[:1],
      *losses[3:],
      *variants[2:],
      *small[1:],
      *(largest if plan.largest_batch_size else []),
    ]

  def _started(
    self, wanted: Sequence[Settings], ahead: int = 2
  ) -> Iterator[StepProcess]:
    """Processes in order, the next ones starting meanwhile."""
    queue = collections.deque()
    for settings in wanted:
      queue.append(self._run.start(settings))
      if len(queue) > ahead:
        yield queue.popleft()
    yield from queue

  def _other(self, process: StepProcess) -> None:
    row, name = self._measure(process), process.settings.variant
    if name != 'none':
      variant = row | {
        'variant': name,
        'ratio': row['on_device'] / self._baseline['on_device'],
      }
      self._run.result.setdefault('variants', []).append(variant)

  def fashion_mnist(self) -> None:
    """Pre-trains on Fashion-MNIST for about the time that is left."""
    run = self._run
    config = ROOT / 'configs/pretrain/fashion_mnist.py'
    if not config.exists() or not self._fashion_mnist:
      run.skip('Fashion-MNIST', 'there is no configuration or no data')
      return
    workdir = run.scratch / 'fashion_mnist'
    arguments = (
      '-m',
      'experiments.pretrain',
      f'--config={config}',
      f'--workdir={workdir}',
      f'--config.data.source=idx:{self._fashion_mnist}',
    )
    log = lambda line: run.log(line[:150])
    # A run that is asked to stop saves what it has.
    run.program(
      *arguments,
      '--mode=train',
      seconds=run.left - 45,
      each_line=log,
      number=signal.SIGTERM,
    )
    run.program(*arguments, '--mode=eval', seconds=run.left, each_line=log)
    results = json.loads((workdir / 'results.json').read_text())
    run.result['fashion_mnist'] = {
      name: value
      for name, value in results.items()
      if isinstance(value, int | float | str)
    }


def _key(settings: Settings) -> tuple:
  """What distinguishes compiled programs."""
  shown = dataclasses.asdict(settings)
  ignored = ('folder', 'num_workers', 'network')
  return tuple(value for name, value in shown.items() if name not in ignored)


def _name(settings: Settings) -> str:
  parts = [settings.case, settings.method, f'batch {settings.batch_size}']
  return ', '.join(parts + [settings.variant] * (settings.variant != 'none'))


def _take_turn(
  process: StepProcess, row: dict[str, Any], seconds: float, left: float
) -> None:
  """Steps on one batch, then with a loader; adds to the lists of a row."""
  for name, on_device in (('on_device', True), ('with_loader', False)):
    found = process.run(seconds, on_device=on_device, timeout=min(120, left))
    row[name].append(found['images_per_second'])
    if not on_device:
      row['data_wait'].append(found['data_wait_share'])
    row['peak_bytes'] = found['peak_bytes']


def _set_ratio(row: dict[str, Any]) -> None:
  """Ratio of the median speeds of JAX and PyTorch, if both were measured."""
  ratios = {}
  for name in ('on_device', 'with_loader'):
    speeds = [row.get(framework, {}).get(name) for framework in ('jax', 'torch')]
    if all(speeds):
      ours, theirs = map(statistics.median, speeds)
      ratios[name] = ours / theirs
  row['ratio'] = ratios


def main(argv: list[str]) -> None:
  """Measures, and prints the tables."""
  del argv
  if unknown := set(_SECTIONS.value) - set(SECTIONS):
    raise app.UsageError(
      f'--sections has no {", ".join(unknown)}; use some of {", ".join(SECTIONS)}'
    )
  output = pathlib.Path(_OUTPUT.value)
  with Run(output, _MINUTES.value, _COMPARE.value) as run:
    command = ['python', '-m', 'benchmarks.accelerator', *sys.argv[1:]]
    run.result['command'] = shlex.join(command)
    # This process only counts operations; those that it starts use the accelerator.
    jax.config.update('jax_platforms', 'cpu')
    Accelerator(run, _FASHION_MNIST.value).measure(
      small=_SMALL.value, only=_SECTIONS.value
    )
  print((output / 'accelerator.md').read_text())


if __name__ == '__main__':
  app.run(main)
