"""Depth estimation, the network fine-tuned with up-projections.

Published: SSL-HSIC's rms from a secondary source, the others from the paper of BYOL.

python -m experiments.reproduce --table=depth --base=shapes --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.DENSE
COLUMNS = {
  '<1.25': ('depth', 'delta1', 'percent'),
  '<1.25²': ('depth', 'delta2', 'percent'),
  '<1.25³': ('depth', 'delta3', 'percent'),
  'rms': ('depth', 'rms', 'plain'),
  'rel': ('depth', 'rel', 'plain'),
}


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return {
    'title': 'Depth estimation',
    'note': 'Errors rms and rel: less is better.'
    + bases.of_imagenet(
      base,
      ' Published values: ResNet-50, NYU Depth v2; SSL-HSIC from a secondary source.',
    ),
    'steps': bases.steps(base, 'depth'),
    'columns': COLUMNS,
    'rows': bases.transferred(base),
    'published': bases.of_imagenet(
      base,
      {
        'SSL-HSIC, with target network': {'rms': 0.539},
        'BYOL': _row(84.6, 96.7, 99.1, 0.541, 0.129),
        'SimCLR': _row(83.3, 96.5, 99.1, 0.557, 0.134),
        'supervised': _row(81.1, 95.3, 98.8, 0.573, 0.127),
      },
    ),
  }


def _row(*values: float) -> dict[str, float]:
  return dict(zip(COLUMNS, values, strict=True))
