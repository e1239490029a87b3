"""Ablation: the kernel of SSL-HSIC.

No published values were found in a source.

python -m experiments.reproduce --table=kernel --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The kernel of SSL-HSIC',
    note='Published is the inverse multiquadric. The linear kernel has neither '
    'scale nor random features.',
    rows={
      'inverse multiquadric': {'loss.ssl_hsic.kernel': 'inverse_multiquadric'},
      'Gaussian': {'loss.ssl_hsic.kernel': 'gaussian'},
      'linear': {'loss.ssl_hsic.kernel': 'linear'},
    },
  )
