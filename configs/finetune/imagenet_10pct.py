"""A network fine-tuned on 10 % of the labels of ImageNet; see imagenet_1pct.py.

Expected top-1 and top-5 for a ResNet-50:
BYOL 68.8 and 89.0, SimCLR 65.6 and 87.8, supervised 56.4 and 80.4 (BYOL paper).

python -m experiments.finetune --config=configs/finetune/imagenet_10pct.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.finetune import imagenet_1pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of 1 %, but for what follows."""
  config = imagenet_1pct.get_config()
  config.data.train.source = 'tfds:imagenet2012_subset/10pct'
  config.runner.checkpoint_every = 1250
  return config
