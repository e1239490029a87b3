"""A network fine-tuned on 1 % of the labels of Imagenette, about ten a class.

The grid of ImageNet's 1 % at a smaller batch. Nothing is published.

python -m experiments.finetune --config=configs/finetune/imagenette_1pct.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.finetune import imagenet_1pct
from configs.linear_eval import imagenette


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet_1pct.get_config()
  of_data = imagenette.get_config()
  config.network = of_data.network
  config.data = of_data.data
  config.data.train.split = 'train[:8500], balanced 1%'
  config.data.validation.split = 'train[8500:]'
  config.training.batch_size = 32
  config.training.learning_rate_batch_size = 32
  return config
