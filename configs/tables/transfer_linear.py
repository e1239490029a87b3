"""Transfer to other classification data sets, with a linear classifier.

Published: the paper of BYOL (rows of configs/transfer/linear.py). Not found in a source
for SSL-HSIC.

python -m experiments.reproduce --table=transfer_linear --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases, tuned
from configs.transfer import digits_linear, fashion_mnist_small_linear, linear

_CONFIGS = {
  'digits': digits_linear,
  'fashion_mnist_small': fashion_mnist_small_linear,
  'imagenet': linear,
}
BASES = tuple(_CONFIGS)


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  config = _CONFIGS[base].get_config()
  note = bases.of_imagenet(
    base, 'Published values: ResNet-50, 1000 epochs on ImageNet.'
  )
  if base == 'fashion_mnist_small':
    note = 'The supervised network has seen the labels of train[:55000].'
  return {
    'title': 'Transfer, linear',
    'note': note,
    'steps': bases.steps(base, 'transfer_linear'),
    'of_changed_rows': bases.of_changed_rows(base),
    'columns': {
      name: ('transfer_linear', f'{name}_{config.tasks[name].metric}', 'percent')
      for name in config.only
    },
    'rows': tuned.tuned(base, bases.transferred(base)),
    'published': config.published.to_dict(),
  }
