"""An encoder of digits on Fashion-MNIST, by the linear transfer protocol.

The encoder of pretrain/digits.py was trained on images of 8 pixels. As a convolutional
network it takes the 28 pixels of the clothing.

python -m experiments.transfer \
  --config=configs/transfer/digits_fashion_mnist_linear.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

from configs.transfer import digits_linear, fashion_mnist_small_linear


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of the digits, but for what follows."""
  config = digits_linear.get_config()
  config.tasks = {'fashion_mnist': fashion_mnist_small_linear.task()}
  config.evaluation.batch_size = 1000
  config.only = ('fashion_mnist',)
  return config
