"""Weight of every loss, chosen on validation images for the table of losses.

Each loss has one setting that weighs alignment against what keeps features apart. It is
tried at 0.3 and 3 times its value, at the learning rate that suits the loss; once its
value is in the table of learning rates. BYOL has no such setting: tried is how far its
target network moves in a step. SimSiam has neither.

python -m experiments.reproduce --table=loss_weight --base=fashion_mnist_small \
  --seeds=1 --workdir=DIR
"""

from typing import Any

from configs.pretrain import fashion_mnist_tiny
from configs.tables import losses, tuned

BASES = ('fashion_mnist_small',)
FACTORS = (0.3, 3.0)  # Of the value in the configuration.

# The setting of each loss, and how it is called.
_WEIGHTS = {
  'ssl_hsic': ('gamma', 'γ'),
  'info_nce': ('temperature', 'τ'),
  'barlow_twins': ('redundancy_weight', 'redundancy weight'),
  'vicreg': ('invariance_weight', 'invariance weight'),
  'sigreg': ('weight', 'weight'),
  'sfrik': ('alignment_weight', 'alignment weight'),
}


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  config = fashion_mnist_tiny.get_config()
  rows = {}
  for title, overrides in tuned.at_their_rates(base, losses.rows()).items():
    name = overrides.get('loss.name', config.loss.name)
    for factor in FACTORS:
      if title == 'BYOL':
        field, symbol = 'target_base_decay', '1 − decay'
        value = round(1 - factor * (1 - config.target_base_decay), 6)
        shown = 1 - value
      elif name in _WEIGHTS:
        setting, symbol = _WEIGHTS[name]
        field = f'loss.{name}.{setting}'
        value = shown = round(factor * config.loss[name][setting], 6)
      else:
        continue
      tried = overrides | tuned.HELD_OUT | {field: value}
      rows[f'{title}, {symbol} = {shown:.3g}'] = tried
  return {
    'title': 'Weight of every loss, on validation images',
    'note': 'kNN on train[55000:] after two epochs of train[:55000], at the best of '
    'three learning rates (table learning_rate).',
    'steps': {'pretrain': 'pretrain/fashion_mnist_tiny'},
    'columns': {'kNN top-1': ('pretrain', 'knn_top1', 'percent')},
    'published': {},
    'rows': rows,
  }
