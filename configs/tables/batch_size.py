"""Ablation: images in the global batch, epochs and scaling of the rate being equal.

No published values were found in a source.

python -m experiments.reproduce --table=batch_size --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION

SIZES = {
  'digits': (32, 64, 128, 256, 512),
  'fashion_mnist_small': (64, 128, 256, 512, 1024),
  'cifar10': (64, 128, 256, 512, 1024),
  'imagenette': (64, 128, 256, 512, 1024),
  'imagenet': (256, 512, 1024, 2048, 4096),
}


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The batch size of SSL-HSIC',
    note='The learning rate is proportional to the batch size.',
    rows={str(size): {'training.batch_size': size} for size in SIZES[base]},
  )
