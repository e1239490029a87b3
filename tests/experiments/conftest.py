"""A pre-trained network, and digits of which some have no label."""

import numpy as np
import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic.data import digits_source, sources
from sslhsic.runs import runner
from tests.experiments import forks


class _SlowlyLabelled(sources.ArraySource):
  """As a data set of TFDS, which says no more than that some have labels."""

  has_slow_labels = True


@pytest.fixture
def partly_labelled(monkeypatch):
  """The digits as 'quick' and 'slow', of which every third has no label."""

  def create(kind, split):
    found = digits_source.create('', split)
    labels = np.where(np.arange(len(found)) % 3, found.labels, -1).astype(np.int32)
    return kind(**{**vars(found), 'labels': labels})

  for name, kind in (('quick', sources.ArraySource), ('slow', _SlowlyLabelled)):
    monkeypatch.setitem(
      sources.SOURCES, name, lambda argument, split, kind=kind: create(kind, split)
    )


@pytest.fixture(scope='session')
def run_program():
  """A function of a program and arguments: its exit code, output and errors."""

  def run(program, *arguments, devices=1):
    arguments = '-m', f'experiments.{program}', *map(str, arguments)
    started = forks.Program(*arguments, devices=devices)
    return started.end(), started.out, started.err

  return run


@pytest.fixture(scope='session')
def pretrained_run(tmp_path_factory):
  """Working directory of a pre-training of two steps, and its experiment at the end."""
  config = digits.get_config()
  config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
  config.training.update(batch_size=16, epochs=1, warmup_epochs=0)
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.data.train_split = 'train[:32]'
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.runner.checkpoint_every = 1
  workdir = tmp_path_factory.mktemp('pretrained')
  made = runner.Runner(pretrain.Pretrain, config, workdir, 'train')
  made.run()
  return workdir, made._experiment
