"""Objectives of self-supervised learning, one a file, by name.

A loss is an object with

  init(rng, dim) -> params
  __call__(params, rng, projections, axis_name=None) -> (loss, metrics)

see `Loss` for the whole contract. Adding one is a file and an entry in `LOSSES`.
"""

from sslhsic.losses.barlow_twins import BarlowTwins
from sslhsic.losses.byol import BYOL
from sslhsic.losses.info_nce import InfoNCE
from sslhsic.losses.loss import Loss
from sslhsic.losses.projections import Projections, l2_normalize
from sslhsic.losses.ssl_hsic import SSLHSIC
from sslhsic.losses.vicreg import VICReg

__all__ = [
  'BYOL',
  'LOSSES',
  'SSLHSIC',
  'BarlowTwins',
  'InfoNCE',
  'Loss',
  'Projections',
  'VICReg',
  'create',
  'l2_normalize',
]

LOSSES = {
  'ssl_hsic': SSLHSIC,
  'info_nce': InfoNCE,
  'byol': BYOL,
  'barlow_twins': BarlowTwins,
  'vicreg': VICReg,
}


def create(name: str, **config):
  """The loss called `name`, with the settings of its class.

  Raises:
    ValueError: there is no such loss, or a setting has a value it cannot have.
    TypeError: it has no such setting.
  """
  if name not in LOSSES:
    raise ValueError(f'unknown loss {name!r}; use one of {", ".join(LOSSES)}')
  return LOSSES[name](**config)
