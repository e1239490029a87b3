"""Accuracy by the number of labels per class on Fashion-MNIST.

For the encoder of pretrain/fashion_mnist_small.py; see knn/fashion_mnist_small.py.

python -m experiments.few_label --config=configs/few_label/fashion_mnist_small.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.few_label import imagenet
from configs.knn import fashion_mnist_small


def get_config() -> ml_collections.ConfigDict:
  """The configuration: encoder and data of kNN, protocol of ImageNet."""
  config = fashion_mnist_small.get_config()
  del config.evaluation.extra_tests
  config.protocol = imagenet.get_config().protocol
  return config
