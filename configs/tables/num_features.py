"""Ablation: number of random Fourier features, and how they are drawn.

No published values were found in a source.

python -m experiments.reproduce --table=num_features --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(base) | {
    'title': 'Random Fourier features of SSL-HSIC',
    'note': 'Published are 512 independent features, another draw on each of 128 '
    'devices. The exact loss is of all pairs of features in the batch.',
    'rows': {
      f'{count}, {name}': {
        'loss.ssl_hsic.num_features': count,
        'loss.ssl_hsic.sampler': sampler,
      }
      for sampler, name in (
        ('stratified', 'stratified'),
        ('orthogonal', 'orthogonal'),
        ('iid', 'independent'),
      )
      for count in (32, 64, 128, 512)
    }
    | {'exact, quadratic in the batch': {'loss.ssl_hsic.sampler': 'exact'}},
  }
