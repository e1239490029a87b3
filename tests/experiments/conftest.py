"""A pre-trained network."""

import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic.runs import runner


@pytest.fixture(scope='session')
def pretrained_run(tmp_path_factory):
  """Working directory of a pre-training of two steps, and its experiment at the end."""
  config = digits.get_config()
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
