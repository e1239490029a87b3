"""Settings of each loss on Fashion-MNIST, chosen on images that are held out.

Tables learning_rate and loss_weight tried them: kNN on train[55000:], one seed.
"""

from collections.abc import Callable, Mapping
from typing import Any

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


# The best of 0.3, 1 and 3 times the weight of a loss at that rate, see loss_weight.py.
_WEIGHTS = {
  ('ssl_hsic', True): {'loss.ssl_hsic.gamma': 3.0},
  ('info_nce', True): {'loss.info_nce.temperature': 0.03},
  ('info_nce', False): {'loss.info_nce.temperature': 0.03},
  ('byol', True): {'target_base_decay': 0.97},
  ('barlow_twins', False): {'loss.barlow_twins.redundancy_weight': 0.015},
  ('vicreg', False): {'loss.vicreg.invariance_weight': 7.5},
  ('sigreg', False): {'loss.sigreg.weight': 0.015},
  ('sfrik', False): {'loss.sfrik.alignment_weight': 1.5},
}

Row = dict[str, Any] | str | None


def at_their_rates(base: str, rows: Mapping[str, Row]) -> dict[str, Row]:
  """Rows of a table with the learning rate of their loss, if it is known at a base."""
  return _changed(base, rows, _rate)


def tuned(base: str, rows: Mapping[str, Row]) -> dict[str, Row]:
  """Rows of a table with learning rate and weight of their loss, if they are known."""
  return _changed(base, rows, lambda loss: _rate(loss) | _WEIGHTS.get(loss, {}))


def _changed(
  base: str,
  rows: Mapping[str, Row],
  changes: Callable[[tuple[str, bool]], dict[str, Any]],
) -> dict[str, Row]:
  if base != 'fashion_mnist_small':
    return dict(rows)
  return {
    title: row | changes(_loss(row)) if isinstance(row, dict) else row
    for title, row in rows.items()
  }


def _loss(row: Mapping[str, Any]) -> tuple[str, bool]:
  """Its name, and whether it has a target network."""
  name = row.get('loss.name', 'ssl_hsic')
  if row.get('target_base_decay') == 0:
    name = 'simsiam'
  return name, row.get('target_network', True)


def _rate(loss: tuple[str, bool]) -> dict[str, float]:
  factor = _RATES.get(loss, 1.0)
  return {} if factor == 1 else {'optimizer.base_learning_rate': factor * RATE}
