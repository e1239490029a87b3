"""Ablation: losses, with and without target network.

No published values were found in a source.

python -m experiments.reproduce --table=losses --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases
from sslhsic import losses

BASES = bases.CLASSIFICATION

# Where the title is not the name of the class.
_TITLES = {
  'ssl_hsic': 'SSL-HSIC',
  'barlow_twins': 'Barlow Twins',
  'sigreg': 'LeJEPA (SIGReg)',
}


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  rows = {}
  for name, loss in losses.LOSSES.items():
    title = _TITLES.get(name, loss.__name__)
    named = {} if name == 'ssl_hsic' else {'loss.name': name}  # The base's own.
    if losses.create(name).needs_target:
      rows[title] = named
    else:
      rows[f'{title}, with target network'] = named
      rows[f'{title}, without'] = named | {'target_network': False}
    if name == 'byol':
      rows['SimSiam'] = named | {
        'target_base_decay': 0.0,
        'target_decay_schedule': 'constant',
      }
  return bases.ablation(base) | {
    'title': 'Losses',
    'note': 'No setting was tuned for a loss: all train at rate, length and '
    'augmentation of the base, with the weights of their papers; the weight of SFRIK, '
    'which depends on the batch size, was chosen on validation images of the digits.',
    'rows': rows,
  }
