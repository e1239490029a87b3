"""Accuracy by the number of labels per class on scikit-learn's digits.

python -m experiments.few_label --config=configs/few_label/digits.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

from configs.few_label import imagenet
from configs.knn import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration: encoder and data of kNN, protocol of ImageNet."""
  config = digits.get_config()
  del config.evaluation.extra_tests
  config.protocol = imagenet.get_config().protocol
  return config
