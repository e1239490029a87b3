"""Ablation: how SSL-HSIC is estimated: from pairs, from all pairs, from features.

No published values were found in a source.

python -m experiments.reproduce --table=estimator --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION
SAMPLERS = {'iid': 'independent'}
BLOCK_SIZES = (1, 8)
# On the digits, where a run takes a minute.
ALL_SAMPLERS = {'stratified': 'stratified', 'orthogonal': 'orthogonal'} | SAMPLERS
ALL_BLOCK_SIZES = (1, 2, 4, 8, 16)


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  sizes, samplers = BLOCK_SIZES, SAMPLERS
  if base == 'digits':
    sizes, samplers = ALL_BLOCK_SIZES, ALL_SAMPLERS
  pairs = {
    # T = 8 is the default: the run is the same as in the other tables.
    f'pairs, T = {size}': {} if size == 8 else {'loss.ssl_hsic.block_size': size}
    for size in sizes
  }
  features = {
    f'{count} features, {name}': {
      'loss.ssl_hsic.estimator': 'features',
      'loss.ssl_hsic.num_features': count,
      'loss.ssl_hsic.sampler': sampler,
    }
    for sampler, name in samplers.items()
    for count in (64, 512)
  }
  exact = {'exact': {'loss.ssl_hsic.estimator': 'exact'}}
  return bases.ablation(
    base,
    title='Estimator of SSL-HSIC',
    note='T is the number of images that each image is compared with. Published are '
    '512 independent features, another draw on each of 128 devices. The exact loss '
    'compares all pairs of features in the batch.',
    rows=pairs | exact | features,
  )
