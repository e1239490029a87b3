"""Semantic segmentation, the network fine-tuned with a fully convolutional head.

Published: SSL-HSIC from a secondary source, the others from the paper of BYOL.

python -m experiments.reproduce --table=segmentation --base=shapes --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.DENSE


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return {
    'title': 'Semantic segmentation',
    'note': bases.of_imagenet(
      base,
      'Published values: ResNet-50, PASCAL VOC 2012; SSL-HSIC from a secondary source.',
    ),
    'steps': bases.steps(base, 'segmentation'),
    'columns': {'mean IoU': ('segmentation', 'mean_iou', 'percent')},
    'rows': bases.transferred(base) | {'MoCo': bases.PUBLISHED},
    'published': bases.of_imagenet(
      base,
      {
        'SSL-HSIC, with target network': {'mean IoU': 76},
        'BYOL': {'mean IoU': 76.3},
        'SimCLR': {'mean IoU': 75.2},
        'supervised': {'mean IoU': 74.4},
        'MoCo': {'mean IoU': 72.5},
      },
    ),
  }
