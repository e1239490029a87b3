"""Measurements of the network during pre-training, one a file, by name.

An evaluator is a frozen dataclass of settings and a function of what the online network
makes of images:

  __call__(inputs) -> {result: value}

see `Evaluator` for the whole contract. Adding one is a file and an entry in
`EVALUATORS`.
"""

from typing import Any

from sslhsic import registry
from sslhsic.evaluators.alpha_req import AlphaReQ
from sslhsic.evaluators.collapse import Collapse
from sslhsic.evaluators.evaluator import INITIAL, Evaluator, Inputs
from sslhsic.evaluators.label_dependence import LabelDependence
from sslhsic.evaluators.lidar import LiDAR
from sslhsic.evaluators.nearest_neighbours import NearestNeighbours
from sslhsic.evaluators.online_classifier import OnlineClassifier
from sslhsic.evaluators.rankme import RankMe
from sslhsic.evaluators.reference_cka import ReferenceCKA

__all__ = [
  'EVALUATORS',
  'INITIAL',
  'AlphaReQ',
  'Collapse',
  'Evaluator',
  'Inputs',
  'LabelDependence',
  'LiDAR',
  'NearestNeighbours',
  'OnlineClassifier',
  'RankMe',
  'ReferenceCKA',
  'create',
  'settings',
]

EVALUATORS = {
  'knn': NearestNeighbours,
  'online_classifier': OnlineClassifier,
  'collapse': Collapse,
  'rankme': RankMe,
  'alpha_req': AlphaReQ,
  'lidar': LiDAR,
  'label_dependence': LabelDependence,
  'reference_cka': ReferenceCKA,
}


def create(name: str, **config: Any) -> Evaluator:
  """The evaluator called `name`, with the settings of its class.

  Raises:
    ValueError: there is no such evaluator, it has no such setting, or a setting has a
      value it cannot have.
  """
  return registry.find('evaluator', EVALUATORS, name, config)(**config)


def settings() -> dict[str, dict[str, Any]]:
  """The settings of every evaluator, {EVALUATOR: {SETTING: default, …}, …}."""
  return registry.defaults(EVALUATORS)
