"""A network fine-tuned on 10 % of the labels of Fashion-MNIST: 5,500 images.

python -m experiments.finetune --config=configs/finetune/fashion_mnist_small_10pct.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.finetune import fashion_mnist_small_1pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration for 1 %, with the changes below."""
  config = fashion_mnist_small_1pct.get_config()
  config.data.train.split = 'train[:55000], balanced 10%'
  config.training.batch_size = 128
  config.training.learning_rate_batch_size = 128
  config.training.epochs = (20,)
  return config
