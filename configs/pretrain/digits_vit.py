"""SSL-HSIC on scikit-learn's digits with a small Vision Transformer.

python -m experiments.pretrain --config=configs/pretrain/digits_vit.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the digits, with another encoder."""
  config = digits.get_config()
  config.network.encoder = 'vit_digits'
  config.optimizer.base_learning_rate = 4e-3  # Times batch_size / 256.
  return config
