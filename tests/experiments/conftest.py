"""Programs as a user starts them, and a pre-trained network."""

import os
import pathlib
import subprocess
import sys

import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic.training import runner

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def start():
  """A function that starts a Python module with arguments, on two devices."""
  processes = []
  environment = os.environ | {
    # The last of a flag counts; how quickly to compile is as in the tests' own process.
    'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=2',
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.jax_cache'),
    # A process that goes on where another was killed compiles nothing again.
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }

  def start(module, *arguments, **changes):
    process = subprocess.Popen(
      [sys.executable, '-m', module, *arguments],
      cwd=ROOT,
      env=environment | changes,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    processes.append(process)
    return process

  yield start
  for process in processes:  # What a failed test has left.
    process.kill()
    process.communicate()


@pytest.fixture(scope='session')
def pretrained_run(tmp_path_factory):
  """Working directory of a pre-training of two steps, and its experiment at the end."""
  config = digits.get_config()
  config.training.update(batch_size=16, epochs=1, warmup_epochs=0)
  config.data.train_split = 'train[:32]'
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.runner.checkpoint_every = 1
  workdir = tmp_path_factory.mktemp('pretrained')
  made = runner.Runner(pretrain.Pretrain, config, workdir, 'train')
  made.run()
  return workdir, made._experiment
