"""A network fine-tuned on 1 % of the labels of Fashion-MNIST: 550 images.

For the encoder of pretrain/fashion_mnist_small.py; see knn/fashion_mnist_small.py.
Length and learning rate are chosen on the last 5,000 training images. From scratch:
--config.init_from=random. Settings are untuned.

python -m experiments.finetune --config=configs/finetune/fashion_mnist_small_1pct.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.finetune import imagenet_1pct
from configs.linear_eval import fashion_mnist_small


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with the changes below."""
  config = imagenet_1pct.get_config()
  of_data = fashion_mnist_small.get_config()
  config.network = of_data.network
  config.data = of_data.data
  config.data.train.split = 'train[:55000], balanced 1%'
  config.augment = {
    'policy': 'gray',
    'options': {'area': 0.5, 'blur': 0.0, 'erase': 0.0},
  }
  config.training.batch_size = 50
  config.training.learning_rate_batch_size = 50
  config.training.learning_rates = (0.01, 0.03, 0.1, 0.3)
  config.evaluation.batch_size = 1000
  return config
