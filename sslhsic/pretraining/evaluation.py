"""Measurements during a pre-training, by the evaluators of its configuration."""

import functools
from collections.abc import Callable
from typing import Any

import ml_collections

from sslhsic import evaluators
from sslhsic.data import compared
from sslhsic.evaluation import embed, features
from sslhsic.pretraining import measurements
from sslhsic.pretraining.extraction import Arrays, Extraction, Network
from sslhsic.weights import pretrained


class Evaluation:
  """The evaluators of a configuration, with their data.

  Args:
    config: the configuration of the pre-training.
    extraction: outputs of the online network.
    num_classes: of the training images; 0: there are no labels.
    initial_network: makes the network with its random initial values, for evaluators
      that compare with it.

  Raises:
    ValueError: see `measurements.create` and `compared.for_pretraining`.

  Attributes:
    skipped: names of evaluators that are left out, for lack of labels.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    extraction: Extraction,
    num_classes: int,
    initial_network: Callable[[], Network],
  ):
    self._config = config
    self._extraction = extraction
    self._initial_network = initial_network
    # A reference does not change during the training: it embeds a split once.
    self._by_reference = functools.cache(self._reference)
    found = measurements.create(config, extraction.source, num_classes)
    self._measurements = [measured for measured in found.values() if measured]
    self.skipped = [name for name, measured in found.items() if not measured]
    # For its checks, and to print what is held out.
    compared.for_pretraining(config.data, config.evaluation)

  @property
  def names(self) -> list[str]:
    """Names of the results."""
    return [name for measured in self._measurements for name in measured.protocol()]

  def of_encoder_alone(self) -> None:
    """Leaves out the evaluators that need another output of the network."""
    self._measurements = [
      x for x in self._measurements if {'embedding'} >= set(x.evaluator.outputs)
    ]

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
      if measured.evaluator.needs_labels:
        arrays = {key: _labelled(x) for key, x in arrays.items()}
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
    if request.reference:
      return self._by_reference(request)
    if request.augmented:
      return self._extraction.of_views(network, request.part, names, *request.augmented)
    return self._extraction.of_split(network, request.part, names)

  def _reference(self, request: measurements.Request) -> Arrays:
    if request.reference == evaluators.INITIAL:
      return self._extraction.of_split(
        self._initial_network(), request.part, ['embedding']
      )
    embedded = embed.embed(
      pretrained.settings(request.reference),
      self._extraction.source(request.part),
      init_from=request.reference,
      batch_size=self._config.evaluation.batch_size,
      max_bad_fraction=self._config.data.max_bad_fraction,
      max_pixels=self._config.data.max_pixels,
    )
    return {'embedding': embedded.embeddings}


def _labelled(outputs: Arrays) -> Arrays:
  """Those of the images that have a label; views and references have none."""
  if 'label' not in outputs:
    return outputs
  return features.labelled(outputs, outputs['label'])


def _whole(outputs: Arrays) -> Arrays:
  """Those of all hosts; views have no rows, as every host has all of them."""
  return features.whole(outputs, outputs['row']) if 'row' in outputs else outputs
