"""Ablation: what γ weighs in the loss of SSL-HSIC.

No published values were found in a source.

python -m experiments.reproduce --table=regularizer --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The regulariser of SSL-HSIC',
    note='Published is √HSIC(Z,Z); InfoNCE implies ½·E Var k.',
    rows={
      '√HSIC(Z,Z)': {'loss.ssl_hsic.regularizer': 'root_hsic_zz'},
      'HSIC(Z,Z)': {'loss.ssl_hsic.regularizer': 'hsic_zz'},
      '½·E Var k': {'loss.ssl_hsic.regularizer': 'kernel_variance'},
      'none': {'loss.ssl_hsic.regularizer': 'none'},
    },
  )
