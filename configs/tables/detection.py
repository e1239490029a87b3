"""Object detection: Mask R-CNN on COCO, Faster R-CNN on PASCAL VOC 2007.

Published: COCO for SSL-HSIC from a secondary source, with a schedule that is not
published; VOC from the paper of BYOL.

python -m experiments.reproduce --table=detection --base=shapes --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.DENSE


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  coco, voc = ('detection', 'detection')
  if base == 'imagenet':
    coco, voc = ('detection_coco', 'detection_voc')
  return {
    'title': 'Object detection',
    'note': bases.of_imagenet(
      base, 'Published values: ResNet-50; SSL-HSIC from a secondary source.'
    ),
    'steps': bases.steps(base, coco, voc),
    'columns': {
      'box AP': (coco, 'box_ap', 'percent'),
      'mask AP': (coco, 'mask_ap', 'percent'),
      'VOC AP50': (voc, 'voc_ap50', 'percent'),
    },
    'rows': bases.transferred(base) | {'MoCo': bases.PUBLISHED},
    'published': bases.of_imagenet(
      base,
      {
        'SSL-HSIC, with target network': {'box AP': 41.3, 'mask AP': 36.8},
        'BYOL': {'VOC AP50': 77.5},
        'SimCLR': {'VOC AP50': 75.2},
        'MoCo': {'VOC AP50': 74.9},
        'supervised': {'VOC AP50': 74.4},
      },
    ),
  }
