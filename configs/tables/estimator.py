"""Ablation: how SSL-HSIC is estimated: from pairs, from all pairs, from features.

No published values were found in a source.

python -m experiments.reproduce --table=estimator --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION
SAMPLERS = {
  'stratified': 'stratified',
  'orthogonal': 'orthogonal',
  'iid': 'independent',
}


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  pairs = {
    # T = 8 is the default: the run is the same as in the other tables.
    f'pairs, T = {size}': {} if size == 8 else {'loss.ssl_hsic.block_size': size}
    for size in (1, 2, 4, 8, 16)
  }
  features = {
    f'{count} features, {name}': {
      'loss.ssl_hsic.estimator': 'features',
      'loss.ssl_hsic.num_features': count,
      'loss.ssl_hsic.sampler': sampler,
    }
    for sampler, name in SAMPLERS.items()
    for count in (64, 512)
  }
  exact = {'exact': {'loss.ssl_hsic.estimator': 'exact'}}
  return bases.ablation(base) | {
    'title': 'Estimator of SSL-HSIC',
    'note': 'T is the number of images that each image is compared with. Published are '
    '512 independent features, another draw on each of 128 devices. The exact loss '
    'compares all pairs of features in the batch.',
    'rows': pairs | exact | features,
  }
