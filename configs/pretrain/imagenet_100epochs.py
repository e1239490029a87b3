"""SSL-HSIC on ImageNet for 100 epochs: what ablations start from.

Nothing is published for it. Base learning rate, weight decay and target decay are
BYOL's for 100 epochs.

python -m experiments.pretrain --config=configs/pretrain/imagenet_100epochs.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 1000 epochs, but for what follows."""
  config = imagenet.get_config()
  config.target_base_decay = 0.99
  config.optimizer.base_learning_rate = 0.45  # Times batch_size / 256.
  config.optimizer.weight_decay = 1e-6
  config.training.epochs = 100
  return config
