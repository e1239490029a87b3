"""Objectives of self-supervised learning, one a file, by name.

A loss is an object with

  init(rng, dim) -> params
  __call__(params, rng, projections, axis_name=None) -> (loss, metrics)

see `Loss` for the whole contract. Adding one is a file and an entry in `LOSSES`: the
fields of its class are its settings, which configurations have under its name.
"""

from typing import Any

from sslhsic import registry
from sslhsic.losses.barlow_twins import BarlowTwins
from sslhsic.losses.byol import BYOL
from sslhsic.losses.dependence_term import DependenceTerm
from sslhsic.losses.info_nce import InfoNCE
from sslhsic.losses.loss import Loss
from sslhsic.losses.projections import Projections, l2_normalize
from sslhsic.losses.sfrik import SFRIK
from sslhsic.losses.sigreg import SIGReg
from sslhsic.losses.ssl_hsic import SSLHSIC
from sslhsic.losses.vicreg import VICReg

__all__ = [
  'BYOL',
  'LOSSES',
  'SFRIK',
  'SSLHSIC',
  'BarlowTwins',
  'DependenceTerm',
  'InfoNCE',
  'Loss',
  'Projections',
  'SIGReg',
  'VICReg',
  'create',
  'l2_normalize',
  'settings',
]

LOSSES = {
  'ssl_hsic': SSLHSIC,
  'info_nce': InfoNCE,
  'byol': BYOL,
  'barlow_twins': BarlowTwins,
  'vicreg': VICReg,
  'sigreg': SIGReg,
  'sfrik': SFRIK,
}


def create(name: str, **config: Any) -> Loss:
  """The loss called `name`, with the settings of its class.

  Raises:
    ValueError: there is no such loss or setting, or a setting has a value it cannot
      have.
  """
  return registry.find('loss', LOSSES, name, config)(**config)


def settings(name: str, **changes: Any) -> dict[str, Any]:
  """The chosen loss and the settings of every loss, for a configuration.

  Args:
    name: the loss that is chosen.
    **changes: its settings that differ from the defaults of its class.

  Returns:
    {'name': name, LOSS: {SETTING: default, …}, …}, and under 'dependence' the settings
    of `DependenceTerm`, which can be added to any loss.

  Raises:
    ValueError: there is no such loss, or it has no such setting.
  """
  term = registry.defaults({'dependence': DependenceTerm})
  return registry.settings('loss', LOSSES, name, changes) | term
