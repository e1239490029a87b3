"""Object detection on PASCAL VOC 2007: Faster R-CNN with a ResNet-50-C4.

The protocol of BYOL (arXiv:2006.07733): trainval2007 to test2007, the longer side of a
training image 480 to 1024 pixels. Expected AP50: BYOL 77.5, SimCLR 75.2, MoCo 74.9,
supervised 74.4 (BYOL paper). Not published and ours: 9,000 steps of 16 images at 0.02,
a tenth after 6,750 and 8,250 (the shape of MoCo's schedule for VOC 2007 and 2012, for
fewer images), batch norm that goes on learning, and 1024 pixels in the test. Numbers
and thresholds are those of Detectron2.

python -m experiments.detection --config=configs/detection/voc.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.detection import coco


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of COCO, but for what follows."""
  config = coco.get_config()
  config.network.update(architecture='c4', with_masks=False)
  config.detector.update(
    anchor_sizes=((32, 64, 128, 256, 512),),
    before_nms_training=12000,
    before_nms=6000,
    smooth_l1_beta=0.0,
    box_pool=14,
  )
  config.data.update(
    train={'source': 'tfds:voc/2007', 'split': 'train+validation'},
    test={'source': 'tfds:voc/2007', 'split': 'test'},
    padded=(1024, 1024),
    shorter=(1024, 1024),  # Only the longer side matters.
    longer=(480, 1024),
    test_shorter=(1024, 1024),
    test_longer=(1024, 1024),
    max_objects=64,
  )
  config.training.update(steps=9000, warmup_steps=100, drops=(0.75, 11 / 12))
  return config
