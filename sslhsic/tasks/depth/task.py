"""Depth estimation as a task, see `sslhsic.tasks.task`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import chex
import haiku as hk
import jax
import numpy as np

from sslhsic.data import sources
from sslhsic.plots import sheets
from sslhsic.tasks import task
from sslhsic.tasks.depth import examples, scores


@dataclasses.dataclass(frozen=True)
class Depth:
  """Depth with the reverse Huber loss, scored by the errors of Eigen et al. (2014).

  Attributes:
    network: as `network.create` returns.
    training_example, test_example: make the arrays of an example.
    head: of the network, in words.
    axis_name: the mapped axis of the devices, if any.
  """

  name: ClassVar = 'depth'
  kinds: ClassVar = ('depth',)
  criterion: ClassVar = 'delta1'
  head_of_encoder: ClassVar = ()

  network: hk.TransformedWithState
  training_example: examples.DepthExample
  test_example: examples.DepthExample
  head: str
  axis_name: str | None = None

  def groups(self, source: sources.Source) -> np.ndarray:
    """All examples are of one group, [n] bool."""
    return np.zeros(len(source), bool)

  def outputs(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: task.Batch,
    keys: chex.PRNGKey,
  ) -> tuple[chex.Array, hk.State]:
    """The predicted depths, [b, H, W]: the loss takes the largest error of all."""
    del batch, keys  # Nothing is random.
    return self.network.apply(params, network_state, None, images, True)

  def loss(self, outputs: chex.Array, batch: task.Batch) -> task.Loss:
    """The reverse Huber loss of the pixels of known depth."""
    return scores.reverse_huber(outputs, batch['depth'], self.axis_name), {}

  def predict(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: task.Batch,
  ) -> dict[str, chex.ArrayTree]:
    """The sums of every image's errors, and its depths."""
    predicted, _ = self.network.apply(params, network_state, None, images, False)
    return {'sums': scores.error_sums(predicted, batch['depth']), 'depth': predicted}

  def score(
    self, predictions: Iterable[dict[str, chex.ArrayTree]], source: sources.Source
  ) -> task.Scores:
    """The errors over all pixels of known depth."""
    del source
    sums = [batch['sums'] for batch in predictions]
    total = jax.tree.map(lambda *x: np.concatenate(x), *sums)
    return task.Scores(scores.errors(total), {})

  def sheet(
    self, shown: Sequence[tuple[dict[str, np.ndarray], Any]]
  ) -> dict[str, list[np.ndarray]]:
    """Images, and their true and predicted depths in colours."""
    # One scale for the whole sheet, so that colours can be compared.
    largest = max(batch['depth'].max() for batch, _ in shown)
    return {
      'image': [batch['image'] for batch, _ in shown],
      'truth': [sheets.of_depths(batch['depth'], largest) for batch, _ in shown],
      'prediction': [
        sheets.of_depths(prediction['depth'], largest) for _, prediction in shown
      ],
    }

  def protocol(self, training: str) -> dict[str, str]:
    """How the errors were measured, the same for all of them."""
    resized, crop = self.test_example.resized, self.test_example.crop
    size = f'resized to {"×".join(map(str, resized))}, ' if resized else ''
    protocol = (
      f'{self.head}, reverse Huber loss; {training}, images {size}centre of '
      f'{"×".join(map(str, crop))} (height × width); over all pixels of known depth '
      'together'
    )
    return dict.fromkeys(('delta1', 'delta2', 'delta3', 'rms', 'rel'), protocol)
