"""Ablation: how fast the target network follows, or that there is none.

No published values were found in a source.

python -m experiments.reproduce --table=target_ema --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The decay of the target network',
    note='The decay is that at the start; it rises to 1 by a cosine unless it is '
    'said to be constant. At a constant 0 the target is the online network.',
    rows={
      'without target network': {'target_network': False},
      '0, constant': {'target_base_decay': 0.0, 'target_decay_schedule': 'constant'},
      '0.99, constant': {
        'target_base_decay': 0.99,
        'target_decay_schedule': 'constant',
      },
    }
    | {
      f'{decay:g}': {'target_base_decay': decay}
      for decay in (0.5, 0.9, 0.97, 0.99, 0.996)
    },
  )
