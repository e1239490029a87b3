"""Measurements of the network during pre-training, one a file, by name.

An evaluator is a frozen dataclass of settings and a function of what the online network
makes of images:

  __call__(inputs) -> {result: value}

see `Evaluator` for the whole contract. Adding one is a file and an entry in
`EVALUATORS`.
"""

import dataclasses

from sslhsic.evaluators.alpha_req import AlphaReQ
from sslhsic.evaluators.collapse import Collapse
from sslhsic.evaluators.evaluator import Evaluator, Inputs
from sslhsic.evaluators.lidar import LiDAR
from sslhsic.evaluators.nearest_neighbours import NearestNeighbours
from sslhsic.evaluators.online_classifier import OnlineClassifier
from sslhsic.evaluators.rankme import RankMe

__all__ = [
  'EVALUATORS',
  'AlphaReQ',
  'Collapse',
  'Evaluator',
  'Inputs',
  'LiDAR',
  'NearestNeighbours',
  'OnlineClassifier',
  'RankMe',
  'create',
]

EVALUATORS = {
  'knn': NearestNeighbours,
  'online_classifier': OnlineClassifier,
  'collapse': Collapse,
  'rankme': RankMe,
  'alpha_req': AlphaReQ,
  'lidar': LiDAR,
}


def create(name: str, **settings) -> Evaluator:
  """The evaluator called `name`, with the settings of its class.

  Raises:
    ValueError: there is no such evaluator, it has no such setting, or a setting has a
      value it cannot have.
  """
  if name not in EVALUATORS:
    raise ValueError(f'unknown evaluator {name!r}; use one of {", ".join(EVALUATORS)}')
  known = [field.name for field in dataclasses.fields(EVALUATORS[name])]
  unknown = sorted(settings.keys() - set(known))
  if unknown:
    raise ValueError(
      f'the evaluator {name} has no setting {unknown[0]!r}; use {", ".join(known)}'
    )
  return EVALUATORS[name](**settings)
