"""Ablation: dimension of the features that the loss sees.

No published values were found in a source.

python -m experiments.reproduce --table=output_size --base=digits --workdir=DIR
"""

from typing import Any

from configs.tables import bases

BASES = bases.CLASSIFICATION


def get_table(base: str) -> dict[str, Any]:
  """The table at the scale of a base."""
  return bases.ablation(
    base,
    title='The output size of the projector',
    note='Published are 256 dimensions.',
    rows={
      str(size): {'network.head.output_size': size}
      for size in (16, 32, 64, 128, 256, 512)
    },
  )
