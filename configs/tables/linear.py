"""Linear evaluation on the data of the pre-training, with and without target network.

Published: 74.8 for SSL-HSIC with target network (README of its code); BYOL and SimCLR
from the paper of BYOL, in whose protocol the learning rate is chosen among several.

python -m experiments.reproduce --table=linear --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases, tuned

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  rows = {
    'SSL-HSIC, with target network': {'target_network': True},
    'SSL-HSIC, without': {'target_network': False},
    'InfoNCE, with target network': {'loss.name': 'info_nce', 'target_network': True},
    'InfoNCE, without': {'loss.name': 'info_nce', 'target_network': False},
    'BYOL': {'loss.name': 'byol'},
    'random initial values': bases.RANDOM,
    'SimCLR': bases.PUBLISHED,
  }
  return {
    'title': 'Linear evaluation',
    'note': bases.of_imagenet(
      base, 'Published values: ResNet-50, 1000 epochs on ImageNet.'
    ),
    'steps': bases.steps(base, 'linear'),
    'of_changed_rows': bases.of_changed_rows(base),
    'columns': {
      'top-1': ('linear', 'linear_top1', 'percent'),
      'top-5': ('linear', 'linear_top5', 'percent'),
    },
    'rows': tuned.tuned(base, rows),
    'published': bases.of_imagenet(
      base,
      {
        'SSL-HSIC, with target network': {'top-1': 74.8},
        'BYOL': {'top-1': 74.3, 'top-5': 91.6},
        'SimCLR': {'top-1': 69.3, 'top-5': 89.0},
      },
    ),
  }
