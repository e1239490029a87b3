"""A network fine-tuned on 10 % of the labels; see imagenette_1pct.py.

python -m experiments.finetune --config=configs/finetune/imagenette_10pct.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.finetune import imagenette_1pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 1 %, but for what follows."""
  config = imagenette_1pct.get_config()
  config.data.train.split = 'train[:8500], balanced 10%'
  config.training.batch_size = 128
  config.training.learning_rate_batch_size = 128
  return config
