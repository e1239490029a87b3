"""Accuracy by the number of labels per class on CIFAR-10.

python -m experiments.few_label --config=configs/few_label/cifar10.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.few_label import imagenet
from configs.linear_eval import cifar10


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for encoder and data."""
  config = imagenet.get_config()
  of_data = cifar10.get_config()
  config.network = of_data.network
  source = of_data.data.train.source
  config.data.update(
    train={'source': source, 'split': 'train'},
    test=of_data.data.test,
    crop_size=of_data.data.crop_size,
    evaluation_crop=of_data.data.evaluation_crop,
    mean=of_data.data.mean,
    std=of_data.data.std,
  )
  config.evaluation.batch_size = 1024
  return config
