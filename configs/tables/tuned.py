"""Settings of each loss on Fashion-MNIST, chosen on images that are held out.

Tables learning_rate and loss_weight tried them: kNN on train[55000:], one seed.
"""

from collections.abc import Mapping
from typing import Any

from configs.tables import bases

RATE = 4e-3  # The learning rate of the small configurations.

# What chooses a setting: kNN on training images that are held out.
HELD_OUT = {
  'data.train_split': 'train[:55000]',
  'evaluation.test_split': 'train[55000:]',
  'evaluation.representations': (),
}

# The best of 0.3, 1 and 3 times `RATE`, by loss and whether there is a target network;
# 1 where nothing is said.
_RATES = {
  ('ssl_hsic', False): 0.3,
  ('info_nce', True): 0.3,
  ('info_nce', False): 0.3,
  ('simsiam', True): 0.3,
  ('barlow_twins', True): 3.0,
  ('barlow_twins', False): 0.3,
  ('vicreg', False): 0.3,
  ('sigreg', False): 0.3,
  ('sfrik', True): 0.3,
  ('sfrik', False): 0.3,
}


def rows_at_their_rates(
  base: str, rows: Mapping[str, dict[str, Any] | str | None]
) -> dict[str, dict[str, Any] | str | None]:
  """Rows of a table with the learning rate of their loss, if it is known at a base."""
  if base != 'fashion_mnist_small':
    return dict(rows)
  return {
    title: row if row in (bases.RANDOM, bases.PUBLISHED) else row | _rate(row)
    for title, row in rows.items()
  }


def _rate(row: Mapping[str, Any]) -> dict[str, float]:
  name = row.get('loss.name', 'ssl_hsic')
  if row.get('target_base_decay') == 0:
    name = 'simsiam'
  factor = _RATES.get((name, row.get('target_network', True)), 1.0)
  return {} if factor == 1 else {'optimizer.base_learning_rate': factor * RATE}
