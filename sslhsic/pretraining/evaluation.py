"""Measurements during a pre-training, by the evaluators of its configuration."""

import functools
from typing import Any

import ml_collections

from sslhsic import evaluators
from sslhsic.data import compared
from sslhsic.evaluation import features
from sslhsic.pretraining import measurements
from sslhsic.pretraining.extraction import Arrays, Extraction, Network


class Evaluation:
  """The evaluators of a configuration, with their data.

  Args:
    config: the configuration of the pre-training.
    extraction: outputs of the online network.
    num_classes: of the training images; 0: there are no labels.

  Raises:
    ValueError: see `measurements.create` and `compared.for_pretraining`.

  Attributes:
    skipped: names of evaluators that are left out, for lack of labels.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, extraction: Extraction, num_classes: int
  ):
    self._config = config
    self._extraction = extraction
    found = measurements.create(config, extraction.source, num_classes)
    self._measurements = [measured for measured in found.values() if measured]
    self.skipped = [name for name, measured in found.items() if not measured]
    # For its checks, and to print what is held out.
    compared.for_pretraining(config.data, config.evaluation)

  @property
  def names(self) -> list[str]:
    """Names of the results."""
    return [name for measured in self._measurements for name in measured.protocol()]

  def measure(self, network: Network) -> dict[str, float]:
    """The results; what several evaluators need is computed once."""
    # Evaluators that ask for the same images share a pass, which gives the outputs that
    # any of them needs.
    needed = {}
    for measured in self._measurements:
      for request in measured.requests().values():
        needed.setdefault(request, set()).update(measured.evaluator.outputs)
    outputs = {
      request: self._outputs(network, request, names)
      for request, names in needed.items()
    }
    # Gathered once for all evaluators that need all hosts' examples, if any do.
    whole = functools.cache(lambda request: _whole(outputs[request]))
    scalars = {}
    for measured in self._measurements:
      get = outputs.get if measured.evaluator.takes_share else whole
      arrays = {key: get(x) for key, x in measured.requests().items()}
      inputs = evaluators.Inputs(**arrays, num_classes=measured.num_classes)
      results = measured.evaluator(inputs)
      scalars |= {measured.prefix + name: value for name, value in results.items()}
    return scalars

  def protocol(self) -> dict[str, Any]:
    """How each result is measured, and on which data, for `results.json`."""
    sentences = {}
    for measured in self._measurements:
      sentences |= measured.protocol()
    train, test = (measurements.part_of(self._config, x) for x in ('train', 'test'))
    return sentences | {
      'data': f'{train.source}: train is {train.split}, test is {test.split}',
      'features': 'embedding of the encoder in evaluation mode, its parameters '
      f'averaged over training (decay {self._config.weight_ema_decay})',
    }

  def _outputs(
    self, network: Network, request: measurements.Request, names: set[str]
  ) -> Arrays:
    if request.augmented:
      return self._extraction.of_views(network, request.part, names, *request.augmented)
    return self._extraction.of_split(network, request.part, names)


def _whole(outputs: Arrays) -> Arrays:
  """Those of all hosts; views have no rows, as every host has all of them."""
  return features.whole(outputs, outputs['row']) if 'row' in outputs else outputs
