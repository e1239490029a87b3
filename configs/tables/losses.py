"""Ablation: losses, with and without target network.

No published values were found in a source.

python -m experiments.reproduce --table=losses --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(base) | {
    'title': 'Losses',
    'note': 'No setting was tuned for a loss: all train at rate, length and '
    'augmentation of the base, with the weights of their papers.',
    'rows': {
      'SSL-HSIC, with target network': {},
      'SSL-HSIC, without': {'target_network': False},
      'InfoNCE, with target network': {'loss.name': 'info_nce'},
      'InfoNCE, without': {'loss.name': 'info_nce', 'target_network': False},
      'BYOL': {'loss.name': 'byol'},
      'SimSiam': {
        'loss.name': 'byol',
        'target_base_decay': 0.0,
        'target_decay_schedule': 'constant',
      },
      'Barlow Twins, with target network': {'loss.name': 'barlow_twins'},
      'Barlow Twins, without': {'loss.name': 'barlow_twins', 'target_network': False},
      'VICReg, with target network': {'loss.name': 'vicreg'},
      'VICReg, without': {'loss.name': 'vicreg', 'target_network': False},
    },
  }
