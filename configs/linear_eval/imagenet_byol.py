"""Linear evaluation on ImageNet, as in the paper of BYOL (arXiv:2006.07733).

The learning rate is chosen on the last 10,009 training images. Expected, for a
ResNet-50 after 1000 epochs: BYOL 74.3 top-1 and 91.6 top-5, SimCLR 69.3 and 89.0 (BYOL
paper); not published for SSL-HSIC. The learning rates are the paper's, times
batch size / 256, with cosine decay and no warm-up as in its code.

python -m experiments.linear_eval --config=configs/linear_eval/imagenet_byol.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.linear_eval import imagenet
from sslhsic import optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of SSL-HSIC's code, but for what follows."""
  config = imagenet.get_config()
  config.data.train.split = 'train[:-10009]'
  config.data.validation = {'source': 'tfds:imagenet2012', 'split': 'train[-10009:]'}
  config.weight_ema_decay = 0.0
  config.optimizer = {
    'learning_rates': (0.4, 0.3, 0.2, 0.1, 0.05),  # For batches of …
    'learning_rate_batch_size': 256,
    'weight_decay': 0.0,
    'decayed': ('weights',),
    **optim.settings('sgd', momentum=0.9, nesterov=True),
  }
  config.training = {
    'batch_size': 1024,  # Over all devices.
    'epochs': 80,
    'warmup_steps': 0,
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.batch_size = 1024
  return config
