"""A network fine-tuned on 140 of scikit-learn's digits, 14 of each: 10 % of the labels.

python -m experiments.finetune --config=configs/finetune/digits_10pct.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

from configs.finetune import digits_1pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 1 %, but for what follows."""
  config = digits_1pct.get_config()
  config.data.train.split = 'train[:80%], balanced 140'
  config.training.batch_size = 35
  config.training.learning_rate_batch_size = 35
  return config
