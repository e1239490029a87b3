"""Weighted kNN on Fashion-MNIST, for the encoder of pretrain/fashion_mnist_small.py.

For the ResNet-18 of pretrain/fashion_mnist.py add
  --config.network.encoder_options="{'stem': 'small'}"

python -m experiments.knn --config=configs/knn/fashion_mnist_small.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.knn import imagenet
from configs.pretrain import fashion_mnist_small


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with the changes below."""
  config = imagenet.get_config()
  pretraining = fashion_mnist_small.get_config()
  config.network.encoder = pretraining.network.encoder
  config.network.encoder_options = pretraining.network.encoder_options
  config.data.update(
    train={'source': pretraining.data.source, 'split': 'train'},
    test={'source': pretraining.data.source, 'split': 'test'},
    crop_size=0,  # Whole images.
    mean=pretraining.data.mean,
    std=pretraining.data.std,
  )
  config.protocol.k = (20, 200)
  config.evaluation.batch_size = 1000
  return config
