"""The comparison at the end of a pre-training: pixels, untrained, trained encoder."""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from sslhsic import storage
from sslhsic.evaluation import features, few_label, representations
from sslhsic.plots import embeddings
from sslhsic.pretraining import measurements
from sslhsic.pretraining.extraction import Extraction, Network, Part
from sslhsic.runs import parts

_KEYS = ('train', 'test')


class Comparison:
  """kNN, linear probe and few labels on the data of `config.evaluation`.

  Args:
    config: the configuration of the pre-training. kNN has the settings of
      `config.evaluators.knn`.
    extraction: outputs of the online network.

  Raises:
    ValueError: a split is not there, or has too few images or labels.

  Attributes:
    is_possible: whether there are labels.
  """

  # What can be compared, in the order of tables.
  NAMES = ('pixels', 'untrained', 'trained')

  def __init__(self, config: ml_collections.ConfigDict, extraction: Extraction):
    self._names = tuple(config.evaluation.representations)
    if self._names != tuple(x for x in self.NAMES if x in self._names) or (
      self.NAMES[-1] not in self._names
    ):
      raise ValueError(
        f'config.evaluation.representations is {self._names}; use {self.NAMES} in this '
        "order, or a part of them with 'trained'"
      )
    self._extraction = extraction
    self._parts, examples = [], []
    # Open both splits before the training, so that one that is missing fails early.
    for key in _KEYS:
      part = measurements.part_of(config, key)
      with measurements.errors_of(f'config.evaluation.{key}_split'):
        self._parts.append(measurements.labelled_part(part, extraction.source))
        examples.append(extraction.source(self._parts[-1]))
    self._train = examples[0]
    self.is_possible = all(source.num_classes for source in examples)
    knn = config.evaluators.get('knn', {})
    self._protocol = representations.Protocol(
      **{name: knn[name] for name in ('k', 'temperature') if name in knn},
      labels_per_class=tuple(config.evaluation.labels_per_class),
    )
    if self.is_possible:
      with measurements.errors_of('config.evaluation.representations'):
        measurements.common_classes(dict(zip(_KEYS, examples, strict=True)))
      self._check_sizes()

  def _check_sizes(self) -> None:
    # A source whose labels are slow to read may have images without one.
    count, k = int(np.sum(self._train.labels >= 0)), self._protocol.k
    if k > count:
      raise ValueError(
        f'config.evaluators.knn.k is {k}, but {self._parts[0].split} has {count} '
        'labelled images; use a smaller k'
      )
    with measurements.errors_of('config.evaluation.labels_per_class'):
      # A draw of the most labels fails if a class has too few images.
      few_label.draw_subsets(
        self._train.labels,
        num_classes=self._train.num_classes,
        labels_per_class=max(self._protocol.labels_per_class, default=0),
        num_draws=1,
        seed=self._protocol.seed,
      )

  def protocol(self) -> dict[str, str]:
    """In words, by the name of the result."""
    return self._protocol.describe()

  def __call__(
    self,
    untrained: Callable[[], Network],
    trained: Callable[[], Network],
    directory: storage.Path,
  ) -> dict[str, Any]:
    """Compares the representations, and prints a table.

    Args:
      untrained: makes the initial network, if that is compared.
      trained: makes the network.
      directory: where the figure of the embeddings goes, if there are several.

    Returns:
      See `representations.compare`; and under 'failed', why the figure is missing.
    """
    networks = {'untrained': untrained, 'trained': trained}
    compared = {}
    for name in self._names:
      network = networks[name]() if name in networks else None
      compared[name] = [self._split(network, part) for part in self._parts]
    comparison = representations.compare(
      compared, num_classes=self._train.num_classes, protocol=self._protocol
    )
    print(representations.table(comparison))
    print(representations.sentence(comparison, self._parts[1].split))
    failed = {}
    if len(compared) > 1:
      maps = {name: test.features for name, (_, test) in compared.items()}
      labels = compared[self._names[-1]][1].labels
      with parts.part('embeddings.png', failed):
        embeddings.embedding_maps(maps, labels, directory / 'embeddings.png')
    return comparison | ({'failed': failed} if failed else {})

  def _split(self, network: Network | None, part: Part) -> representations.Split:
    """Embeddings of a network, or pixels, of the images that have a label."""
    if network is None:
      source = self._extraction.source(part)
      found = representations.pixels(self._extraction.one_pass(source))
    else:
      outputs = self._extraction.of_split(network, part, ['embedding'])
      outputs = features.whole(outputs, outputs['row'])
      found = representations.Split(outputs['embedding'], outputs['label'])
    return features.labelled(found, found.labels)
