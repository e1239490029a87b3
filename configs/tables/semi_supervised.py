"""Semi-supervised learning: the network fine-tuned on a part of the labels.

Published: the paper of BYOL. That of random initial values is its supervised baseline,
trained on the same labels alone.

python -m experiments.reproduce --table=semi_supervised --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases, tuned

BASES = bases.CLASSIFICATION
SHARES = (1, 10)


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  shares = (*SHARES, 100) if base == 'imagenet' else SHARES
  rows = bases.transferred(base)
  del rows['supervised']
  return {
    'title': 'Semi-supervised learning',
    'note': 'Columns say the part of the labels.'
    + bases.of_imagenet(
      base,
      ' Published values: ResNet-50 on ImageNet; beside random initial values, the '
      'supervised baseline.',
    ),
    'steps': bases.steps(base, *(f'finetune_{share}pct' for share in shares)),
    'of_changed_rows': bases.of_changed_rows(base),
    'columns': {
      f'{share} %, top-{k}': (f'finetune_{share}pct', f'finetune_top{k}', 'percent')
      for share in shares
      for k in (1, 5)
    },
    'rows': tuned.tuned(base, rows),
    'published': bases.of_imagenet(
      base,
      {
        'BYOL': _row(53.2, 78.4, 68.8, 89.0)
        | ({'100 %, top-1': 77.7, '100 %, top-5': 93.9} if 100 in shares else {}),
        'SimCLR': _row(48.3, 75.5, 65.6, 87.8),
        'random initial values': _row(25.4, 48.4, 56.4, 80.4),
      },
    ),
  }


def _row(*values: float) -> dict[str, float]:
  names = (f'{share} %, top-{k}' for share in SHARES for k in (1, 5))
  return dict(zip(names, values, strict=True))
