"""Learning rate of every loss, chosen on validation images for the table of losses.

Three rates for each loss, with and without target network, and kNN on images that are
neither trained nor tested on: the same budget for all.

python -m experiments.reproduce --table=learning_rate --base=fashion_mnist_small \
  --seeds=1 --workdir=DIR
"""

from typing import Any

from configs.tables import losses, tuned

BASES = ('fashion_mnist_small',)
FACTORS = (0.3, 1.0, 3.0)  # Of the rate of the configuration.


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  del base  # There is one.
  rows = {}
  for title, overrides in losses.rows().items():
    for factor in FACTORS:
      rate = {'optimizer.base_learning_rate': factor * tuned.RATE}
      tried = overrides | tuned.HELD_OUT | rate
      rows[f'{title}, {factor:g} × rate'] = tried
  return {
    'title': 'Learning rate of every loss, on validation images',
    'note': 'kNN on train[55000:] after two epochs of train[:55000], in multiples of '
    'the rate of the configuration.',
    'steps': {'pretrain': 'pretrain/fashion_mnist_tiny'},
    'columns': {'kNN top-1': ('pretrain', 'knn_top1', 'percent')},
    'published': {},
    'rows': rows,
  }
