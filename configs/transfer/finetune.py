"""Transfer to twelve classification data sets, the whole network fine-tuned.

The protocol of BYOL (arXiv:2006.07733), which SSL-HSIC takes over: a grid of 7 learning
rates and 8 weight decays, the best by the validation split, trained again on training
and validation images. Expected: the published rows below, for ResNet-50. Splits as in
linear.py; the cosine decay of the learning rate is ours.

python -m experiments.transfer --config=configs/transfer/finetune.py --workdir=DIR \
  --config.init_from=RUN [--config.only="('food101', 'dtd')"]
"""

import ml_collections

from configs.finetune import imagenet_1pct
from configs.transfer import linear


def get_config() -> ml_collections.ConfigDict:
  """The configuration: tasks of linear.py, training as in semi-supervised learning."""
  config = imagenet_1pct.get_config()
  for field in ('train', 'validation', 'test'):
    del config.data[field]
  config.protocol = 'finetune'
  config.only = linear.NAMES  # Tasks to do, in the order of the table.
  config.tasks = linear.tasks()
  config.retrain = True
  config.training = {
    'batch_size': 256,  # Over all devices.
    'epochs': (),
    'steps': (20_000,),
    'learning_rates': tuple(10 ** (-4 + i / 2) for i in range(7)),  # For batches of …
    'learning_rate_batch_size': 256,
    # Each is divided by the learning rate.
    'weight_decays': (0.0, *(10 ** (-6 + i / 2) for i in range(7))),
    'short_batch_norm': True,  # Decay of statistics by the steps of an epoch.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.batch_size = 256
  config.runner.checkpoint_every = 1000
  config.published = {
    'BYOL': linear.row('88.5 97.8 86.1 76.3 63.7 91.6 88.1 85.4 76.2 91.7 93.8 97.0'),
    'SimCLR': linear.row('88.2 97.7 85.9 75.9 63.5 91.3 88.1 84.1 73.2 89.2 92.1 97.0'),
    'supervised': linear.row(
      '88.3 97.5 86.4 75.8 64.3 92.1 86.0 85.0 74.6 92.1 93.3 97.6'
    ),
    'random initial values': linear.row(
      '86.9 95.9 80.2 76.1 53.6 91.4 85.9 67.3 64.8 81.5 72.6 92.0'
    ),
  }
  return config
