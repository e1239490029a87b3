"""The contract between a dense task and the experiment that trains it.

A task owns the examples, the network, the loss, the scores and the figures. The
experiment owns data sets, devices, optimiser, checkpoints and the initial encoder.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import chex
import haiku as hk
import numpy as np

from sslhsic.data import reading, sources

Batch = dict[str, chex.Array]
# The loss, and scalars to log.
Loss = tuple[chex.Array, dict[str, chex.Array]]


class Scores(NamedTuple):
  """Results of one pass over the test examples.

  Attributes:
    scalars: the scores by name, which are logged and reported.
    details: further results for the report, of JSON types.
  """

  scalars: dict[str, float]
  details: dict[str, Any]


class Task(Protocol):
  """A task on annotated images; a batch holds the arrays [b, ...] of its examples.

  Attributes:
    name: of the task, and of its sheet of examples.
    kinds: annotations that it needs, see `annotations.Annotations`.
    criterion: the score by which settings are chosen, of which more is better.
    network: the encoder, named `classifier.ENCODER`, with a head: Haiku functions, of
      which `init` is one of (rng, images, is_training).
    training_example: makes the arrays of a training example, 'image' among them.
    test_example: likewise, of a test example.
    head_of_encoder: parts of the names of the encoder's modules that belong to the
      head: they are trained even if the encoder is not.
  """

  name: str
  kinds: tuple[str, ...]
  criterion: str
  head_of_encoder: tuple[str, ...]
  network: Any
  training_example: reading.Make
  test_example: reading.Make

  def groups(self, source: sources.Source) -> np.ndarray:
    """The group of each example of a source, [n] bool: arrays differ in shape at most
    between the groups, and all examples of a batch are of one group."""
    ...

  def outputs(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: Batch,
    keys: chex.PRNGKey,
  ) -> tuple[chex.ArrayTree, hk.State]:
    """All that the training loss needs of the network, of a part of the batch.

    The best are losses with their weights, `collectives.Weighted`: then a batch in
    microbatches needs no second pass (see `microbatches.gradients`).

    Args:
      params, network_state: of the network.
      images: [b, H, W, C], normalised, float32.
      batch: arrays of `training_example`.
      keys: [b], one for each image.

    Returns:
      A tree of arrays [b, ...], float32, and the new network state.
    """
    ...

  def loss(self, outputs: chex.ArrayTree, batch: Batch) -> Loss:
    """The training loss, of the images of all devices together.

    Args:
      outputs: of all images of this device.
      batch: arrays of `training_example`, likewise.
    """
    ...

  def predict(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: Batch,
  ) -> chex.ArrayTree:
    """Predictions for a batch of test examples, for `score` and `sheet`.

    Args:
      params, network_state: of the network.
      images: [b, H, W, C], normalised, float32.
      batch: arrays of `test_example`, and 'row' of the source.

    Returns:
      A tree of arrays [b, ...].
    """
    ...

  def score(
    self, predictions: Iterable[chex.ArrayTree], source: sources.Source
  ) -> Scores:
    """The scores of the predictions for every example of a source, batch by batch."""
    ...

  def sheet(
    self, shown: Sequence[tuple[dict[str, np.ndarray], Any]]
  ) -> dict[str, list[np.ndarray]]:
    """Columns of a sheet of examples, see `sheets.sheet`.

    Args:
      shown: for each example, its arrays and its prediction.
    """
    ...

  def protocol(self, training: str) -> dict[str, str]:
    """How each score was measured.

    Args:
      training: how the network was trained, in words.
    """
    ...
