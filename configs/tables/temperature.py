"""Ablation: the temperature of InfoNCE, and how far it is from its approximation.

Each run logs InfoNCE of its features, exactly, and the second-order approximation by
HSIC(Z,Y) and E Var k that relates it to SSL-HSIC (figures/kernel_info_nce.png).

python -m experiments.reproduce --table=temperature --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  info_nce = {
    'loss.name': 'info_nce',
    'target_network': False,
    'instruments': True,
  }
  return bases.ablation(
    base,
    title='The temperature of InfoNCE',
    note='InfoNCE without target network; SSL-HSIC as configured, as in other '
    'ablations.',
    rows={
      'SSL-HSIC, with target network': {},
    }
    | {
      f'τ = {temperature:g}': info_nce | {'loss.info_nce.temperature': temperature}
      for temperature in (0.05, 0.1, 0.2, 0.5, 1.0)
    },
  )
