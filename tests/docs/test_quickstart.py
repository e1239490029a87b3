"""The commands of the quickstart run one after the other, on a short training."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'quickstart.md').read_text(encoding='utf-8')
SECTIONS = dict(
  re.findall(r'^## (.*?)\n(.*?)(?=^## |\Z)', TEXT, re.DOTALL | re.MULTILINE)
)
SHORT = '--config.training.epochs=1 --config.training.warmup_epochs=0 --mode=train'
# One group of blocks in place of two, with embeddings of the same size.
SMALL = (
  '--config.network.encoder_options='
  '\'{"blocks_per_group": (1,), "channels_per_group": (64,)}\''
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A directory in which the commands find the programs, and write."""
  for name in ('configs', 'experiments', 'sslhsic'):
    (tmp_path / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _run(section):
  for block in re.findall(r'```sh\n(.*?)```', SECTIONS[section], re.DOTALL):
    command = block.replace('.venv/bin/python', sys.executable).strip()
    if 'experiments.pretrain' in command:
      command += f' {SHORT} {SMALL}'
    if 'experiments.knn' in command:
      command += f' {SMALL}'
    environment = os.environ | {
      'PYTHONPATH': os.getcwd(),
      'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.jax_cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1'),
    }
    run = subprocess.run(
      ['bash', '-c', command],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_commands_run_in_their_order(checkout):
  for section in ('Train', 'Evaluate', 'Export and load'):
    _run(section)
  assert 'knn_top1' in (checkout / 'runs' / 'digits-knn' / 'results.json').read_text()
  (example,) = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
  names = {}
  exec(example, names)
  assert names['embeddings'].shape == (8, 64)
  assert np.isfinite(names['embeddings']).all()
