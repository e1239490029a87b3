"""Ablation: the weight γ of the regulariser.

No published values were found in a source.

python -m experiments.reproduce --table=gamma --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The weight γ of √HSIC(Z,Z)',
    note='Published is γ = 3.',
    rows={
      f'γ = {gamma:g}': {'loss.ssl_hsic.gamma': gamma}
      for gamma in (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
    },
  )
