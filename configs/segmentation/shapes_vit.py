"""Semantic segmentation of shapes with a small Vision Transformer and a linear head.

To try it in minutes on two CPU cores; the encoder is trained too, from random values.

python -m experiments.segmentation --config=configs/segmentation/shapes_vit.py \
  --workdir=DIR --config.init_from=random
"""

import ml_collections

from configs.segmentation import shapes


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the shapes, with another network."""
  config = shapes.get_config()
  config.network.encoder = 'vit_digits'
  config.network.encoder_options = {'patch_size': 8, 'image_size': 64, 'depth': 4}
  config.network.head = 'linear'
  config.optimizer.name = 'adamw'
  config.training.learning_rates = (1e-3,)
  return config
