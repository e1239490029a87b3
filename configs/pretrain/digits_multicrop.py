"""SSL-HSIC on the digits with six views: two whole images and four crops of them.

To try multi-crop in minutes. No result is known, and the settings are untuned.

python -m experiments.pretrain --config=configs/pretrain/digits_multicrop.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the digits, with other views."""
  config = digits.get_config()
  whole = {'policy': 'digits'}
  crop = {'policy': 'digits', 'size': 6, 'area': (0.3, 0.7), 'is_global': False}
  config.augment.views = (whole,) * 2 + (crop,) * 4
  return config
