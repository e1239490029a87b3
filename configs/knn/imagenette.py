"""Weighted kNN on Imagenette, for the encoder of pretrain/imagenette.py.

python -m experiments.knn --config=configs/knn/imagenette.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.few_label import imagenette
from configs.knn import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with another encoder, other data and k."""
  config = imagenet.get_config()
  of_data = imagenette.get_config()
  config.network = of_data.network
  config.data = of_data.data
  config.protocol.k = (20, 200)
  config.evaluation.batch_size = of_data.evaluation.batch_size
  return config
