"""Linear evaluation on Fashion-MNIST, minutes on two CPU cores.

For the encoder of pretrain/fashion_mnist_small.py; see knn/fashion_mnist_small.py. The
learning rate is chosen on the last 5,000 training images. Settings are untuned.

python -m experiments.linear_eval --config=configs/linear_eval/fashion_mnist_small.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.linear_eval import digits
from configs.pretrain import fashion_mnist_small


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the digits, with the changes below."""
  config = digits.get_config()
  pretraining = fashion_mnist_small.get_config()
  source = pretraining.data.source
  config.network = {
    'encoder': pretraining.network.encoder,
    'encoder_options': pretraining.network.encoder_options,
  }
  config.data.update(
    train={'source': source, 'split': 'train[:55000]'},
    validation={'source': source, 'split': 'train[55000:]'},
    test={'source': source, 'split': 'test'},
    mean=pretraining.data.mean,
    std=pretraining.data.std,
  )
  config.training = {
    'batch_size': 256,
    'epochs': 20,
    'warmup_steps': 0,
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.batch_size = 1000
  config.runner.evaluate_every = 1074  # 5 epochs.
  config.runner.checkpoint_every = 1074
  return config
