"""SSL-HSIC on Fashion-MNIST for 2 epochs: what ablations start from.

A third as long as fashion_mnist_small.py, with the smallest network that tells losses
apart: about two minutes of one CPU core.

python -m experiments.pretrain --config=configs/pretrain/fashion_mnist_tiny.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import fashion_mnist_small


def get_config() -> ml_collections.ConfigDict:
  """The configuration of 6 epochs, with the changes below."""
  config = fashion_mnist_small.get_config()
  config.network.encoder_options = {
    'blocks_per_group': (1, 1),
    'channels_per_group': (32, 64),
  }
  config.training.epochs = 2
  config.training.warmup_epochs = 0
  return config
