"""An encoder of clothing on the digits, by the linear transfer protocol.

For the encoder of pretrain/fashion_mnist_small.py; see knn/fashion_mnist_small.py. The
8×8 digits are resized to 28 pixels; Fashion-MNIST itself is there to compare.

python -m experiments.transfer --config=configs/transfer/fashion_mnist_small_linear.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.pretrain import fashion_mnist_small
from configs.transfer import digits_linear, linear


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the twelve data sets, with the changes below."""
  config = linear.get_config()
  pretraining = fashion_mnist_small.get_config()
  config.network.encoder = pretraining.network.encoder
  config.network.encoder_options = pretraining.network.encoder_options
  config.tasks = {'digits': digits_linear.tasks()['digits'], 'fashion_mnist': task()}
  config.data.update(crop_size=28, mean=pretraining.data.mean, std=pretraining.data.std)
  config.evaluation.batch_size = 1000
  config.published = {}
  config.only = ('digits', 'fashion_mnist')
  return config


def task() -> dict[str, str]:
  """Source, splits and metric of Fashion-MNIST."""
  return {
    'source': fashion_mnist_small.get_config().data.source,
    'train': 'train[:55000]',
    'validation': 'train[55000:]',
    'test': 'test',
    'metric': 'top1',
  }
