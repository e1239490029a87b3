"""SSL-HSIC on Imagenette for 100 epochs: what ablations start from.

Nothing is published for it. Target decay is BYOL's for 100 epochs.

python -m experiments.pretrain --config=configs/pretrain/imagenette_100epochs.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenette


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 1000 epochs, but for what follows."""
  config = imagenette.get_config()
  config.target_base_decay = 0.99
  config.training.epochs = 100
  return config
