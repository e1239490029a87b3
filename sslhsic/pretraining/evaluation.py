"""Measurements of a pre-training: on the way, and the comparison at its end."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import haiku as hk
import ml_collections

from sslhsic import parallel
from sslhsic.data import compared, loader, sources
from sslhsic.evaluation import diagnostics, encoder, features, representations
from sslhsic.plots import embeddings

# Replicated parameters and batch statistics of the online network.
Network = tuple[hk.Params, hk.State]


class Evaluation:
  """What is measured of an online network, with its data.

  Args:
    config: the configuration of the pre-training.
    network: the online network.

  Attributes:
    is_comparable: whether there are labels to measure representations by.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, network: hk.TransformedWithState
  ):
    data, self._settings = config.data, config.evaluation
    self._train, self._test = compared.for_pretraining(data, config.evaluation)
    self.is_comparable = bool(self._train.num_classes and self._test.num_classes)
    self._protocol = representations.Protocol(**config.evaluation.protocol)
    self._source_name = data.source
    self._decay = config.weight_ema_decay
    self._max_bad_fraction, self._max_pixels = data.max_bad_fraction, data.max_pixels
    self._crop = centre_crop(data.crop_size)
    self._prepare = encoder.preparation(data.mean, data.std)
    self._network = network
    self._embed = parallel.pmap(self._embed_images)

  def measure(self, network: Network) -> dict[str, float]:
    """Collapse measures and, where there are labels, kNN and online classifier."""
    test, logits = self._features(self._test, network)
    scalars = {}
    if self.is_comparable:
      train, _ = self._features(self._train, network)
      scalars['knn_top1'] = representations.knn_top1(
        train, test, num_classes=self._train.num_classes, protocol=self._protocol
      )
    if logits is not None and self._test.num_classes:
      scalars['online_top1'] = (logits.argmax(axis=1) == test.labels).mean()
    return scalars | {
      'embedding_std': diagnostics.feature_std(test.features),
      'effective_rank': diagnostics.effective_rank(test.features),
    }

  def compare(
    self, untrained: Callable[[], Network], trained: Network, directory: pathlib.Path
  ) -> dict[str, Any]:
    """Compares pixels, the untrained and the trained encoder, and prints a table.

    Args:
      untrained: gives the initial network.
      trained: the network.
      directory: where the figure of the embeddings goes.
    """
    embed = lambda network: [
      self._features(source, network)[0] for source in (self._train, self._test)
    ]
    compared = {
      'pixels': [
        representations.pixels(self.one_pass(source))
        for source in (self._train, self._test)
      ],
      'untrained': embed(untrained()),
      'trained': embed(trained),
    }
    maps = {name: test.features for name, (_, test) in compared.items()}
    labels = compared['pixels'][1].labels
    embeddings.embedding_maps(maps, labels, directory / 'embeddings.png')
    comparison = representations.compare(
      compared, num_classes=self._train.num_classes, protocol=self._protocol
    )
    print(representations.table(comparison))
    return comparison

  def protocol(self) -> dict[str, Any]:
    """What is measured on which data, for `results.json`."""
    measured = self._protocol.describe() if self.is_comparable else {}
    return measured | {
      'data': f'{self._source_name}: train is {self._settings.train_split}, test is '
      f'{self._settings.test_split}',
      'features': 'embedding of the encoder in evaluation mode, its parameters '
      f'averaged over training (decay {self._decay})',
    }

  def calibrated(self, network: Network, source: sources.Source) -> Network:
    """The network with batch statistics of some images of a source."""
    batch = next(self.one_pass(source))
    params, network_state = network
    return params, encoder.calibrated(
      self._network, params, network_state, self._prepare, batch
    )

  def one_pass(self, source: sources.Source) -> Iterator[loader.Batch]:
    """Every image of a source once."""
    return loader.one_pass(
      source,
      batch_size=self._settings.batch_size,
      crop=self._crop,
      max_bad_fraction=self._max_bad_fraction,
      max_pixels=self._max_pixels,
    )

  def _features(
    self, source: sources.Source, network: Network
  ) -> tuple[representations.Split, Any]:
    """Embeddings with their labels, and the classifier's logits, of a whole source."""
    outputs, labels = features.extract(
      lambda batch: self._embed(*network, batch['image']), self.one_pass(source)
    )
    return representations.Split(outputs.embedding, labels), outputs.logits

  def _embed_images(self, params, network_state, images):
    outputs, _ = self._network.apply(
      params, network_state, None, self._prepare(images), False
    )
    return outputs


def centre_crop(size: int) -> loader.Crop:
  """The crop of evaluations to a size in pixels; 0: the whole image."""
  return loader.centre_crop(size) if size else loader.whole_image
