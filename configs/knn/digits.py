"""Weighted kNN on scikit-learn's digits.

python -m experiments.knn --config=configs/knn/digits.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

from configs.knn import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.network.encoder = 'resnet_digits'
  config.data.update(
    train={'source': 'digits', 'split': 'train'},
    test={'source': 'digits', 'split': 'test'},
    crop_size=0,  # Whole images.
    mean=(0.3053,),
    std=(0.3760,),
  )
  config.protocol.k = (20, 200)
  config.evaluation.batch_size = 360
  return config
