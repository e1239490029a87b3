"""The examples of docs/extending.md work, with no other files than they name."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'extending.md').read_text(encoding='utf-8')
SECTIONS = dict(
  re.findall(r'^## (.*?)\n(.*?)(?=^## |\Z)', TEXT, re.DOTALL | re.MULTILINE)
)
PART = re.compile(r'^`(\S+)`$|^```(\w+)\n(.*?)^```$', re.DOTALL | re.MULTILINE)

# A quick training: what the command does after its first steps is tested elsewhere.
QUICK = (
  ' --config.training.epochs=1 --config.training.warmup_epochs=0'
  ' --config.runner.log_every=1 --config.evaluation.representations="()"'
  ' --config.network.head.hidden_size=16'
)
SMALL_NETWORK = (
  ' --config.network.encoder_options='
  '\'{"blocks_per_group": (1,), "channels_per_group": (4,)}\''
)

# What shows in the working directory that the new part was used.
LOGGED = {
  'A loss': 'uniformity',
  'An encoder': 'loss',
  'A data set': 'loss',
  'An evaluator': 'silhouette',
  'An optimiser': 'loss',
}
CONFIGURED = {
  'A loss': ('loss', 'align_uniform'),
  'An encoder': ('network', 'encoder'),
  'A data set': ('data', 'source'),
  'An evaluator': ('evaluators', 'silhouette'),
  'An optimiser': ('optimizer', 'lion'),
}


def _patched(text, diff):
  """The text with the lines of a diff removed and added, at the one place they fit."""
  lines = diff.splitlines(keepends=True)
  old = ''.join(line[1:] for line in lines if line[0] in ' -')
  new = ''.join(line[1:] for line in lines if line[0] in ' +')
  assert text.count(old) == 1, f'not in the file once:\n{old}'
  return text.replace(old, new)


def _apply(section, tree):
  """Makes the changes of a section; returns its commands."""
  path, commands = None, []
  for name, language, body in PART.findall(section):
    if name:
      path = tree / name
    elif language == 'python':
      assert not path.exists()
      path.write_text(body, encoding='utf-8')
    elif language == 'diff':
      path.write_text(
        _patched(path.read_text(encoding='utf-8'), body), encoding='utf-8'
      )
    else:
      commands.append(body)
  return commands


@pytest.fixture
def tree(tmp_path):
  """A copy of the programs and the library."""
  for folder in ('sslhsic', 'experiments', 'configs'):
    shutil.copytree(
      ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__')
    )
  return tmp_path


@pytest.mark.parametrize('name', SECTIONS)
def test_example_runs(name, tree):
  (command,) = _apply(SECTIONS[name], tree)
  # The others need no evaluation, whose programs take long to compile.
  mode = '' if name == 'An evaluator' else ' --mode=train'
  network = '' if name == 'An encoder' else SMALL_NETWORK
  environment = os.environ | {
    'PYTHONPATH': str(tree),
    'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.jax_cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1'),
  }
  run = subprocess.run(
    ['bash', '-c', command.rstrip() + QUICK + mode + network],
    cwd=tree,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  (workdir,) = (tree / 'runs').iterdir()
  config = json.loads((workdir / 'config.json').read_text())
  first, second = CONFIGURED[name]
  assert second in config[first]
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert any(LOGGED[name] in json.loads(line) for line in lines)
  assert (workdir / 'results.json').exists() == (name == 'An evaluator')


def test_every_kind_of_part_has_an_example():
  assert SECTIONS.keys() == LOGGED.keys()


@pytest.mark.parametrize('path', re.findall(r'`((?:sslhsic|tests)/[\w/]+\.\w+)`', TEXT))
def test_files_that_are_named_exist_or_are_made(path):
  made = re.search(rf'^`{re.escape(path)}`\n\n```python', TEXT, re.MULTILINE)
  assert made or (ROOT / path).exists() or 'NAME' in path
