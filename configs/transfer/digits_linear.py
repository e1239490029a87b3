"""The linear transfer protocol on scikit-learn's digits, to see it run in a minute.

python -m experiments.transfer --config=configs/transfer/digits_linear.py \
  --workdir=DIR --config.init_from=runs/digits
"""

import ml_collections

from configs.transfer import linear


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of the twelve data sets, but for what follows."""
  config = linear.get_config()
  config.network.encoder = 'resnet_digits'
  config.tasks = tasks()
  config.data.update(crop_size=0, mean=(0.3053,), std=(0.3760,))
  config.evaluation.batch_size = 360
  config.published = {}
  config.only = ('digits', 'digits_10pct')
  return config


def tasks() -> dict[str, dict[str, str]]:
  """All of the digits, and a tenth of the labels."""
  digits = {
    'source': 'digits',
    'validation': 'train[80%:]',
    'test': 'test',
    'metric': 'top1',
  }
  return {
    'digits': digits | {'train': 'train[:80%]'},
    'digits_10pct': digits
    | {'train': 'train[:80%], balanced 140', 'metric': 'mean_per_class'},
  }
