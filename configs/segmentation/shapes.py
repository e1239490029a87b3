"""Semantic segmentation of made-up shapes, minutes on two CPU cores.

python -m experiments.segmentation --config=configs/segmentation/shapes.py \
  --workdir=DIR --config.init_from=random
"""

import ml_collections

from configs.segmentation import voc


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of VOC, but for what follows."""
  config = voc.get_config()
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {
      'blocks_per_group': (1, 1, 1, 1),
      'channels_per_group': (32, 64, 128, 128),
      'zero_init_last_scale': True,
      'output_stride': 8,
    },
    'head': 'fcn',
    'channels': 64,
    'dilation': 2,
  }
  config.data.update(
    train={'source': 'shapes:64', 'split': 'train'},
    validation={'source': '', 'split': ''},
    test={'source': 'shapes:64', 'split': 'test'},
    crop_size=64,
    scales=(0.8, 1.25),
    mean=(0.565, 0.563, 0.572),
    std=(0.168, 0.168, 0.168),
    num_workers=0,  # A thread.
  )
  config.training.update(
    steps=4000, learning_rates=(0.1,), warmup_steps=50, drops=(), batch_size=16
  )
  config.retrain = False
  config.evaluation.batch_size = 100
  config.runner.update(log_every=20, checkpoint_every=500)
  return config
