"""Ablation: losses, with and without target network.

No published values were found in a source.

python -m experiments.reproduce --table=losses --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases, tuned
from sslhsic import losses

BASES = bases.CLASSIFICATION

# Where the title is not the name of the class.
_TITLES = {
  'ssl_hsic': 'SSL-HSIC',
  'barlow_twins': 'Barlow Twins',
  'sigreg': 'LeJEPA (SIGReg)',
}


def rows() -> dict[str, dict[str, Any]]:
  """Title -> what differs from the configuration of SSL-HSIC with target network."""
  found = {}
  for name, loss in losses.LOSSES.items():
    title = _TITLES.get(name, loss.__name__)
    named = {} if name == 'ssl_hsic' else {'loss.name': name}  # The base's own.
    if losses.create(name).needs_target:
      found[title] = named
    else:
      found[f'{title}, with target network'] = named
      found[f'{title}, without'] = named | {'target_network': False}
    if name == 'byol':
      found['SimSiam'] = named | {
        'target_base_decay': 0.0,
        'target_decay_schedule': 'constant',
      }
  return found


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  note = (
    'Every loss has the rate, length and augmentation of the base, and the weights of '
    'its paper; the weight of SFRIK, which depends on the batch size, was chosen on '
    'validation images of the digits.'
  )
  if base == 'fashion_mnist_small':
    note = (
      'Every loss has length and augmentation of the base, and the best of three '
      'learning rates and of three weights on validation images (tables learning_rate '
      'and loss_weight).'
    )
  return bases.ablation(
    base,
    title='Losses',
    note=note,
    rows=tuned.tuned(base, rows()),
  )
