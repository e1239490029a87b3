"""The fine-tuning transfer protocol on scikit-learn's digits, with a smaller grid.

python -m experiments.transfer --config=configs/transfer/digits_finetune.py \
  --workdir=DIR --config.init_from=runs/digits
"""

import ml_collections

from configs.transfer import digits_linear, finetune


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of the twelve data sets, but for what follows."""
  config = finetune.get_config()
  config.network.encoder = 'resnet_digits'
  config.tasks = digits_linear.tasks()
  config.data.update(crop_size=0, mean=(0.3053,), std=(0.3760,), num_workers=0)
  config.augment.policy = 'digits'
  config.training.batch_size = 64
  config.training.steps = (200,)
  config.training.learning_rates = (0.03, 0.1, 0.3)
  config.training.learning_rate_batch_size = 64
  config.training.weight_decays = (0.0, 1e-4)
  config.evaluation.batch_size = 360
  config.runner.checkpoint_every = 100
  config.published = {}
  config.only = ('digits', 'digits_10pct')
  return config
