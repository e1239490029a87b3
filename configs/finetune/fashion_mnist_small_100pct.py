"""A network trained on all labels of Fashion-MNIST: from scratch, the supervised one.

python -m experiments.finetune --workdir=DIR --config.init_from=random \
  --config=configs/finetune/fashion_mnist_small_100pct.py
"""

import ml_collections

from configs.finetune import fashion_mnist_small_10pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration for 10 %, with the changes below."""
  config = fashion_mnist_small_10pct.get_config()
  config.data.train.split = 'train[:55000]'
  config.training.batch_size = 256
  config.training.learning_rate_batch_size = 256
  config.training.learning_rates = (0.1,)
  config.training.epochs = (10,)
  return config
