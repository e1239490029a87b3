"""SSL-HSIC on scikit-learn's digits for 40 epochs: what ablations start from.

Half as long as digits.py, after which nearly every loss is right on 99 of 100 images.

python -m experiments.pretrain --config=configs/pretrain/digits_40epochs.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 80 epochs, but for what follows."""
  config = digits.get_config()
  config.training.epochs = 40
  config.training.warmup_epochs = 5
  return config
