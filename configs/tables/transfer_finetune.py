"""Transfer to other classification data sets, fine-tuned.

Published: the paper of BYOL (rows of configs/transfer/finetune.py). Not found in a
source for SSL-HSIC.

python -m experiments.reproduce --table=transfer_finetune --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases
from configs.transfer import digits_finetune, finetune

BASES = ('digits', 'imagenet')


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  config = (digits_finetune if base == 'digits' else finetune).get_config()
  return {
    'title': 'Transfer, fine-tuned',
    'note': bases.of_imagenet(
      base, 'Published values: ResNet-50, 1000 epochs on ImageNet.'
    ),
    'steps': bases.steps(base, 'transfer_finetune'),
    'of_changed_rows': bases.of_changed_rows(base),
    'columns': {
      name: ('transfer_finetune', f'{name}_{config.tasks[name].metric}', 'percent')
      for name in config.only
    },
    'rows': bases.transferred(base),
    'published': config.published.to_dict(),
  }
