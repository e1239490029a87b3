"""Faults, made on purpose: is anything lost?

Run `python -m benchmarks.faults` (`--kills=N` for other than 50). Real processes
train a small network on the digits; they are killed at random moments, their files are
damaged, their disk is full, their batches are not finite, their pipes are closed, their
workers are killed, their data cannot be read. Then they are started again,
and what they end with is compared, bit for bit, with a run that nothing has disturbed.

Prints a table and, as the last line, the same as JSON.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.tiny_runs import (
  BATCH_SIZE,
  LONG,
  TINY,
  Program,
  differences,
  start,
  start_several,
  steps,
  train,
  train_several,
)
from sslhsic.tables import printed

# A program that trains, and makes the images of one step not a number.
_POISONED = """
import jax.numpy as jnp
from experiments import pretrain
from sslhsic.pretraining import step
from sslhsic.runs import runner

plain = step.augment_views

def poisoned(training, seed_key, batch):
  is_bad = batch['index'] // BATCH_SIZE == POISONED_STEP - 1
  is_bad = is_bad[:, None, None, None]
  return [jnp.where(is_bad, jnp.nan, view) for view in plain(training, seed_key, batch)]

step.augment_views = poisoned
runner.main(pretrain.Pretrain)
"""

# A program that trains, and has a fault at the start of one step.
_FAULTY = """
import errno, multiprocessing, os, signal
from experiments import pretrain
from sslhsic.data import reading, sources
from sslhsic.runs import runner

def unreadable(source, index):
  raise OSError(errno.EIO, os.strerror(errno.EIO))

class Faulty(pretrain.Pretrain):
  def step(self, global_step, rng):
    if global_step == FAULTY_STEP:
      FAULT
    return super().step(global_step, rng)

runner.main(Faulty)
"""

_CLOSE_PIPE = (
  'read, write = os.pipe(); os.dup2(write, 1); os.close(read); '
  "print('unread', flush=True)"
)
_LOSE_DISK = (
  'reading._BACKOFF_S = (0.1, 0.1); sources.ArraySource.__getitem__ = unreadable'
)


# Kills


def kill(
  program: Program,
  workdir: pathlib.Path,
  number: signal.Signals,
  moment: str,
  rng: np.random.Generator,
) -> None:
  """Sends a signal while it starts, at some time of the training, or while it saves."""
  if moment == 'start':
    program.wait_until(lambda: False, seconds=rng.uniform(0.5, 6))
  else:
    log = workdir / 'metrics.jsonl'
    size = log.stat().st_size if log.exists() else 0
    program.wait_until(lambda: log.exists() and log.stat().st_size > size)
  if moment == 'step':
    time.sleep(rng.uniform(0, 0.3))
  if moment == 'save':
    saving = (workdir / 'checkpoints').glob
    for _ in range(rng.integers(1, 4)):
      program.wait_until(lambda: not any(saving('*tmp*')))
      program.wait_until(lambda: any(saving('*tmp*')))
  program.send(number)


def kills(
  directory: pathlib.Path,
  reference: pathlib.Path,
  arguments: Sequence[str] = TINY,
  count: int = 3,
  seed: int = 0,
) -> dict:
  """Kills and restarts until there were so many kills; every run goes to its end."""
  rng = np.random.default_rng(seed)
  tried, lost = collections.Counter(), []
  runs = 0
  while tried.total() < count:
    workdir = directory / f'run{runs}'
    runs += 1
    is_over = False
    while tried.total() < count and not is_over:
      number = _SIGNALS[rng.choice(4, p=_SHARES)]
      moment = ('start', 'step', 'save')[rng.choice(3, p=_MOMENTS)]
      before = steps(workdir)
      program = start(workdir, '--mode=train', *arguments)
      kill(program, workdir, number, moment, rng)
      is_over = program.end() == 0 and 'stopped by' not in program.out
      if not is_over:
        tried[f'{number.name}, {_MOMENT_NAMES[moment]}'] += 1
        lost += _lost_by_kill(program, before, workdir, number)
    train(workdir, *arguments)
    lost += differences(workdir, reference)
  return {
    'fault': 'killed and restarted',
    'tried': dict(sorted(tried.items())),
    'outcome': f'{runs} runs ended like an undisturbed one, bit for bit',
    'lost': lost,
  }


_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SHARES = (0.45, 0.3, 0.1, 0.15)
_MOMENTS = (0.15, 0.4, 0.45)
_MOMENT_NAMES = {
  'start': 'starting or at any step',
  'step': 'between or in steps',
  'save': 'while saving',
}


def _lost_by_kill(
  program: Program, before: list[int], workdir: pathlib.Path, number: signal.Signals
) -> list[str]:
  """What should be there and is not, given the steps that were saved before."""
  lost, code, after = [], program.end(), steps(workdir)
  if before and (not after or after[-1] < before[-1]):
    lost.append(f'checkpoint {before[-1]}')
  if code == 0:
    stopped_at = int(program.out.partition('after step ')[2].split(',')[0])
    if after[-1:] != [stopped_at]:
      lost.append(f'step {stopped_at}, said to be saved')
  elif code != -number and (code, number) != (1, signal.SIGINT):  # KeyboardInterrupt.
    lost.append(f'exit code {code}: {program.err[-300:]}')
  return lost


# Damaged files


def damage(
  directory: pathlib.Path, reference: pathlib.Path, count: int, seed: int = 0
) -> dict:
  """Damages the latest checkpoint of a run that is half done, and lets it go on."""
  rng = np.random.default_rng(seed)
  half = directory / 'half'
  program = start(half, '--mode=train', *LONG)
  program.wait_until(lambda: len(steps(half)) > 1)
  program.send(signal.SIGTERM)
  program.finish()
  tried, lost, named = collections.Counter(), [], 0
  for number in range(count):
    workdir = directory / f'damaged{number}'
    shutil.copytree(half, workdir)
    latest = steps(workdir)[-1]
    kind = ('bit flipped', 'truncated', 'file missing')[number % 3]
    _damage(workdir / 'checkpoints' / str(latest), kind, rng)
    program = train(workdir, *LONG)
    tried[kind] += 1
    is_named = f'the checkpoint of step {latest} is damaged' in program.err
    named += is_named
    if is_named != (workdir / 'damaged' / str(latest)).exists():
      lost.append(f'damaged checkpoint {latest}')
    lost += differences(workdir, reference)
  return {
    'fault': 'damaged checkpoint',
    'tried': dict(tried),
    'outcome': f'{named} named, put aside, and the one before used; '
    f'{count - named} harmless, in what nothing depends on',
    'lost': lost,
  }


def _damage(path: pathlib.Path, kind: str, rng: np.random.Generator) -> None:
  files = sorted(file for file in path.rglob('*') if file.is_file())
  sizes = np.array([file.stat().st_size for file in files])
  file = files[rng.choice(len(files), p=sizes / sizes.sum())]
  if kind == 'file missing':
    file.unlink()
    return
  content = bytearray(file.read_bytes())
  if kind == 'truncated':
    content = content[: rng.integers(len(content))]
  else:
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
  file.write_bytes(content)


# A full disk


def full_disk(directory: pathlib.Path, reference: pathlib.Path) -> dict:
  """Fills a small tmpfs under a run that stops, and one that goes on."""
  lost, outcome = [], []
  for policy in ('stop', 'continue'):
    with _tmpfs(directory / policy, megabytes=8) as disk:
      if not disk:
        return {
          'fault': 'full disk',
          'tried': {},
          'outcome': 'not tried: tmpfs cannot be mounted here',
          'lost': [],
        }
      workdir, ballast = disk / 'run', disk / 'ballast'
      program = start(
        workdir, '--mode=train', *LONG, f'--config.runner.on_save_error={policy}'
      )
      program.wait_until(lambda workdir=workdir: bool(steps(workdir)))
      _fill(ballast)
      if policy == 'stop':
        said = program.finish(code=1).err.strip().splitlines()[-1]
        lost += [] if steps(workdir) else ['the last good checkpoint']
        ballast.unlink()
        train(workdir, *LONG)
      else:
        program.wait_until(lambda program=program: 'could not' in program.err)
        ballast.unlink()
        said = next(x for x in program.finish().err.splitlines() if 'could not' in x)
      outcome.append(f'{policy}: "{_clause(said, "could not")}"')
      lost += differences(workdir, reference)
  return {
    'fault': 'full disk (tmpfs)',
    'tried': {'stop': 1, 'continue': 1},
    'outcome': '; '.join(outcome) + '; with room again, ended like an undisturbed run',
    'lost': lost,
  }


@contextlib.contextmanager
def _tmpfs(path: pathlib.Path, megabytes: int) -> Iterator[pathlib.Path | None]:
  """A small file system of its own at a path; None where that is not allowed."""
  path.mkdir()
  options = ['-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(path)]
  if (
    not shutil.which('mount')
    or subprocess.run(['mount', *options], capture_output=True, check=False).returncode
  ):
    yield None
    return
  try:
    yield path
  finally:
    subprocess.run(['umount', '--lazy', str(path)], check=True)


def _fill(path: pathlib.Path) -> None:
  with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
    while True:
      file.write(bytes(2**16))
  with path.open('ab', buffering=0) as file, contextlib.suppress(OSError):
    while True:
      file.write(b'0')


# A batch that is not finite


def poisoned_batch(
  directory: pathlib.Path, reference: pathlib.Path, step: int = 11
) -> dict:
  """Puts NaN into the images of one step."""
  workdir = directory / 'poisoned'
  program = ('-c', f'POISONED_STEP = {step}\nBATCH_SIZE = {BATCH_SIZE}\n{_POISONED}')
  poisoned = start(workdir, '--mode=train', *LONG, program=program)
  line = poisoned.finish(code=1).err.strip().splitlines()[-1]
  batch = json.loads((workdir / 'bad_batch.json').read_text())
  lost = []
  if batch['step'] != step or batch['index'][0] != (step - 1) * 32:
    lost.append(f'which batch: {batch["step"]}')
  if steps(workdir)[-1] != (step - 1) // 4 * 4:
    lost.append('the last good checkpoint')
  train(workdir, *LONG)
  lost += differences(workdir, reference)
  return {
    'fault': 'NaN in a batch',
    'tried': {'NaN': 1},
    'outcome': f'"{_clause(line, "step")}"; without the NaN, ended like an undisturbed '
    'run',
    'lost': lost,
  }


# Faults at the start of a step, after which the program ends by itself


def faulty_steps(
  directory: pathlib.Path, reference: pathlib.Path, step: int = 49
) -> dict:
  """Closes the pipe, kills a worker, makes the data unreadable, breaks an evaluation.

  No step before the fault may be lost, though none of them has a checkpoint's number.
  """
  faults = {
    'pipe closed': (_CLOSE_PIPE, '--mode=train'),
    'input/output error': (_LOSE_DISK, '--mode=train'),
    'worker killed': (
      'multiprocessing.active_children()[0].kill()',
      '--mode=train',
      '--config.data.num_workers=1',
    ),
    'evaluation fails': ('self.evaluate = None', '--config.runner.evaluate_every=50'),
  }
  lost, said = [], []
  for number, (name, (fault, *arguments)) in enumerate(faults.items()):
    workdir = directory / f'run{number}'
    code = _FAULTY.replace('FAULTY_STEP', str(step)).replace('FAULT', fault)
    program = start(workdir, *LONG, *arguments, program=('-c', code)).finish(code=1)
    line = next(x for x in program.err.splitlines() if x.startswith('error: '))
    said.append(f'{name}: "{_clause(line.removeprefix("error: "), "")}"')
    if steps(workdir)[-1] < step:
      lost.append(f'{name}: steps {steps(workdir)[-1]} to {step}')
    train(workdir, *LONG)
    lost += differences(workdir, reference)
  return {
    'fault': 'fault in a step',
    'tried': dict.fromkeys(faults, 1),
    'outcome': f'{"; ".join(said)}; every step before was saved, and the same command '
    'ended like an undisturbed run',
    'lost': lost,
  }


def without_git(directory: pathlib.Path) -> dict:
  """Trains and reports where no program can be found, and output is ASCII."""
  workdir = directory / 'run'
  where = {'PATH': str(directory), 'PYTHONIOENCODING': 'ascii'}
  start(workdir, *TINY, **where).finish()
  results = json.loads((workdir / 'results.json').read_text())
  return {
    'fault': 'no git, output in ASCII',
    'tried': {'run and report': 1},
    'outcome': 'results.json is there, with git_commit null',
    'lost': [] if results['git_commit'] is None else ['git_commit'],
  }


# Several processes, and two jobs


def lose_process(
  workdir: pathlib.Path,
  victim: int,
  rng: np.random.Generator,
  arguments: Sequence[str] = TINY,
  **settings,
) -> tuple[float, list[Program]]:
  """Kills one of several processes at a random step after a checkpoint.

  Args:
    workdir: of the run.
    victim: which one is killed.
    rng: decides when.
    arguments: of the program.
    settings: see `tiny_runs.start_several`; two processes by default.

  Returns:
    Seconds until the others have ended, and these.

  Raises:
    AssertionError: one ended as if nothing had happened.
  """
  programs = start_several(workdir, *arguments, **settings)
  lost = programs.pop(victim)
  lost.wait_until(lambda: bool(steps(workdir)))
  kill(lost, workdir, signal.SIGKILL, 'step', rng)
  killed_at = time.monotonic()
  for program in programs:
    if program.end() == 0:
      raise AssertionError(f'another process did not notice: {program.err}')
  return time.monotonic() - killed_at, programs


def lost_processes(directory: pathlib.Path, count: int, seed: int = 0) -> dict:
  """Kills one of two processes, then starts both again."""
  rng = np.random.default_rng(seed)
  train_several(directory / 'reference', *LONG)
  tried, lost, longest = collections.Counter(), [], 0.0
  for number in range(count):
    workdir = directory / f'run{number}'
    victim = number % 2
    seconds, _ = lose_process(workdir, victim, rng, LONG)
    longest = max(longest, seconds)
    tried[f'process {victim}'] += 1
    train_several(workdir, *LONG)
    lost += differences(workdir, directory / 'reference')
  return {
    'fault': 'one of two processes killed',
    'tried': dict(tried),
    'outcome': f'the other ended with an error within {longest:.0f} s; restarted, both '
    'ended like undisturbed ones, bit for bit',
    'lost': lost,
  }


def second_job(directory: pathlib.Path, reference: pathlib.Path) -> dict:
  """Starts a job in the working directory of one that runs."""
  workdir = directory / 'run'
  first = start(workdir, '--mode=train', *LONG)
  first.wait_until(lambda: bool(steps(workdir)))
  first.send(signal.SIGSTOP)  # So that it still runs when the second comes.
  err = start(workdir, *LONG).finish(code=1).err
  first.send(signal.SIGCONT)
  first.finish()
  return {
    'fault': 'second job in a working directory',
    'tried': {'second job': 1},
    'outcome': f'refused: "… {_clause(err, "is in use")}"; the first ended like an '
    'undisturbed run',
    'lost': differences(workdir, reference),
  }


def _clause(message: str, start: str) -> str:
  """That of a message which starts with some words."""
  return message[message.index(start) :].partition(';')[0]


def table(rows: Sequence[dict]) -> str:
  """The results as a Markdown table."""
  cells = []
  for row in rows:
    tried = '; '.join(f'{count} × {name}' for name, count in row['tried'].items())
    lost = '; '.join(row['lost']) or 'nothing'
    cells.append([row['fault'], tried, row['outcome'], lost])
  return printed.markdown(['fault', 'tried', 'what happened', 'lost'], cells)


def main() -> None:
  """Tries every fault."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--damages', type=int, default=9)
  parser.add_argument('--lost-processes', type=int, default=4)
  parser.add_argument('--only', nargs='*', help='names of trials, such as kills')
  settings = parser.parse_args()
  rows = []
  with tempfile.TemporaryDirectory() as directory:
    reference = pathlib.Path(directory) / 'reference'
    train(reference, *LONG)
    trials = {
      'kills': lambda path: kills(path, reference, LONG, settings.kills),
      'damage': lambda path: damage(path, reference, settings.damages),
      'full_disk': lambda path: full_disk(path, reference),
      'poisoned_batch': lambda path: poisoned_batch(path, reference),
      'faulty_steps': lambda path: faulty_steps(path, reference),
      'without_git': without_git,
      'lost_processes': lambda path: lost_processes(path, settings.lost_processes),
      'second_job': lambda path: second_job(path, reference),
    }
    for name in settings.only or trials:
      path = pathlib.Path(directory) / name
      path.mkdir()
      rows.append(trials[name](path))
      print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
  print(table(rows))
  print(json.dumps({'benchmark': 'faults', 'trials': rows}))


if __name__ == '__main__':
  main()
