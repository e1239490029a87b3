"""SimSiam (Chen and He, 2021) on scikit-learn's digits: BYOL without moving average.

The target network is the online network itself, without gradient: its decay is 0
throughout. Projector and predictor are those of BYOL.

python -m experiments.pretrain --config=configs/pretrain/digits_simsiam.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = digits.get_config()
  config.loss.name = 'byol'
  config.target_base_decay = 0.0
  config.target_decay_schedule = 'constant'
  return config
