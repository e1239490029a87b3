"""Object detection on PASCAL VOC 2007: Faster R-CNN R50-C4, the protocol of MoCo.

He et al. (2020), arXiv:1911.05722: trainval2007 to test2007, the whole network for
9,000 steps of 16 images, shorter sides of 480 to 800 px, 800 in the test, batch norm
trained over all devices, and one more after conv5. Numbers, losses and the rest are
those of its configurations for Detectron2 (Base-RCNN-C4-BN.yaml and
pascal_voc_R_50_C4_24k.yaml). Ours: a tenth of the learning rate after 6,750 and 8,250
steps, the shape of its schedule of 24,000.

BYOL's paper has AP50 of other methods by the protocol of voc_byol.py; they do not
compare with this one.

python -m experiments.detection --config=configs/detection/voc_moco.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.detection import coco_detectron2


def get_config() -> ml_collections.ConfigDict:
  """The configuration of COCO by Detectron2, with the changes below."""
  config = coco_detectron2.get_config()
  config.network.update(architecture='c4', with_masks=False, extra_batch_norm=True)
  config.detector.update(
    anchor_sizes=((32, 64, 128, 256, 512),),
    before_nms_training=12000,
    before_nms=6000,
    after_nms_training=2000,
    box_pool=14,
  )
  config.data.update(
    train={'source': 'tfds:voc/2007', 'split': 'train+validation'},
    test={'source': 'tfds:voc/2007', 'split': 'test'},
    shorter=(480, 800, 32),
    max_objects=64,
  )
  config.training.update(steps=9000, warmup_steps=100, drops=(0.75, 11 / 12))
  return config
