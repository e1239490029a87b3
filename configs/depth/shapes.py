"""Depth of made-up shapes, minutes on two CPU cores.

python -m experiments.depth --config=configs/depth/shapes.py --workdir=DIR \
  --config.init_from=random
"""

import ml_collections

from configs.depth import nyu


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of NYU Depth v2, but for what follows."""
  config = nyu.get_config()
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {
      'blocks_per_group': (1, 1, 1, 1),
      'channels_per_group': (32, 64, 128, 128),
      'zero_init_last_scale': True,
      'output_stride': 16,
    },
    'head': 'up_projections',
    'channels': (64, 32, 16),
  }
  config.data.update(
    train={'source': 'shapes:64', 'split': 'train'},
    test={'source': 'shapes:64', 'split': 'test'},
    resized=(),
    crop=(64, 64),
    mean=(0.565, 0.563, 0.572),
    std=(0.168, 0.168, 0.168),
    num_workers=0,  # A thread.
  )
  config.optimizer.weight_decay = 1e-4
  config.training.update(
    steps=2400, learning_rates=(0.1,), warmup_steps=50, batch_size=16
  )
  config.evaluation.batch_size = 100
  config.runner.update(log_every=20, checkpoint_every=400)
  return config
