"""Object detection on COCO 2017: Mask R-CNN R50-FPN, the 1× schedule of Detectron2.

SSL-HSIC reports box and mask AP 41.3 and 36.8 (secondary source); its schedule is not
published. This one is Detectron2's (Base-RCNN-FPN.yaml, mask_rcnn_R_50_FPN_1x.yaml):
90,000 steps of 16 images at 0.02, a tenth after 60,000 and 80,000, shorter sides of 640
to 800 px, its numbers and losses. Ours: batch norm learns, over all devices, from the
first layer on, where Detectron2 freezes that of supervised encoders, and the first two
stages.

python -m experiments.detection --config=configs/detection/coco_detectron2.py \
  --workdir=DIR --config.init_from=RUN --config.data.train.source=coco:PATH \
  --config.data.test.source=coco:PATH
"""

import ml_collections

from configs.detection import coco_torchvision


def get_config() -> ml_collections.ConfigDict:
  """The configuration of torchvision's settings, with the changes below."""
  config = coco_torchvision.get_config()
  config.detector.update(after_nms_training=1000, smooth_l1_beta=0.0, sampling_ratio=0)
  config.data.shorter = (640, 800, 32)
  config.optimizer.decayed = ('w', 'b')  # Also biases.
  return config
