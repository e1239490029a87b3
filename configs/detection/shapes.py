"""Object detection of made-up shapes, minutes on two CPU cores.

python -m experiments.detection --config=configs/detection/shapes.py --workdir=DIR \
  --config.init_from=random
"""

import ml_collections

from configs.detection import coco_torchvision


def get_config() -> ml_collections.ConfigDict:
  """The configuration of COCO, with the changes below."""
  config = coco_torchvision.get_config()
  config.network.update(
    encoder='resnet18',
    encoder_options={
      'blocks_per_group': (1, 1, 1, 1),
      'channels_per_group': (32, 64, 128, 128),
      'zero_init_last_scale': True,
    },
    pyramid_channels=48,
    box_size=192,
  )
  config.detector.update(
    anchor_sizes=((12,), (20,), (32,), (48,), (72,)),
    anchors_per_image=64,
    before_nms_training=128,
    before_nms=128,
    after_nms_training=64,
    after_nms=48,
    rois_per_image=32,
    roi_positive_fraction=0.5,
    detections_per_image=20,
    mask_pool=7,
  )
  config.data.update(
    train={'source': 'shapes', 'split': 'train'},
    test={'source': 'shapes', 'split': 'test'},
    padded=(96, 96),
    shorter=(96, 96, 1),
    longer=(96, 96, 1),
    test_shorter=96,
    test_longer=96,
    max_objects=8,
    mask_size=28,
    mean=(0.565, 0.563, 0.572),
    std=(0.168, 0.168, 0.168),
    num_workers=0,  # A thread.
  )
  config.training.update(
    steps=700, learning_rates=(0.05,), warmup_steps=100, drops=(), batch_size=16
  )
  config.evaluation.batch_size = 50
  config.runner.update(log_every=20, checkpoint_every=350)
  return config
