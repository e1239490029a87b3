"""Semantic segmentation as a task, see `sslhsic.tasks.task`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import chex
import haiku as hk
import jax.numpy as jnp
import numpy as np

from sslhsic import collectives
from sslhsic.data import sources
from sslhsic.plots import sheets
from sslhsic.tasks import task
from sslhsic.tasks.segmentation import examples, scores


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """Segmentation with the cross-entropy of the pixels, scored by mean IoU.

  Attributes:
    class_names: of the C classes, by their number.
    network: as `network.create` returns.
    training_example, test_example: make the arrays of an example.
    head: of the network, in words.
    axis_name: the mapped axis of the devices, if any.
  """

  name: ClassVar = 'segmentation'
  kinds: ClassVar = ('segmentation',)
  criterion: ClassVar = 'mean_iou'
  head_of_encoder: ClassVar = ()

  class_names: tuple[str, ...]
  network: hk.TransformedWithState
  training_example: examples.TrainingExample
  test_example: examples.TestExample
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
  ) -> tuple[collectives.Weighted, hk.State]:
    """The cross-entropy of every pixel, void ones without weight."""
    del keys  # Nothing is random.
    logits, network_state = self.network.apply(
      params, network_state, None, images, True
    )
    return scores.cross_entropy(logits, batch['segmentation']), network_state

  def loss(self, outputs: collectives.Weighted, batch: task.Batch) -> task.Loss:
    """The mean cross-entropy of the pixels that are not void."""
    del batch  # The outputs are the losses.
    return outputs.mean(self.axis_name), {}

  def predict(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: task.Batch,
  ) -> dict[str, chex.Array]:
    """The confusion matrix of every image, and the classes of its pixels."""
    logits, _ = self.network.apply(params, network_state, None, images, False)
    return {
      'confusion': scores.confusion_matrices(logits, batch['segmentation']),
      'classes': jnp.argmax(logits, axis=-1).astype(jnp.uint8),
    }

  def score(
    self, predictions: Iterable[dict[str, np.ndarray]], source: sources.Source
  ) -> task.Scores:
    """Mean IoU over the classes and accuracy over the pixels; IoU of every class."""
    del source
    # One matrix of the whole split: averaging IoU over images is another score.
    confusion = sum(
      batch['confusion'].sum(axis=0, dtype=np.int64) for batch in predictions
    )
    iou = scores.intersection_over_union(confusion)
    scalars = {
      'mean_iou': float(np.nanmean(iou)),
      'pixel_accuracy': float(np.trace(confusion) / max(confusion.sum(), 1)),
    }
    named = zip(self.class_names, iou, strict=True)
    details = {'iou': {name: float(x) for name, x in named if not np.isnan(x)}}
    return task.Scores(scalars, details)

  def sheet(
    self, shown: Sequence[tuple[dict[str, np.ndarray], Any]]
  ) -> dict[str, list[np.ndarray]]:
    """Images, and their true and predicted classes in colours."""
    return {
      'image': [batch['image'] for batch, _ in shown],
      'truth': [sheets.of_classes(batch['segmentation']) for batch, _ in shown],
      'prediction': [
        sheets.of_classes(prediction['classes']) for _, prediction in shown
      ],
    }

  def protocol(self, training: str) -> dict[str, str]:
    """How mean IoU was measured."""
    return {
      'mean_iou': f'{self.head}; {training}, the centre of {self.test_example.size} px '
      'of each image at one scale; intersection over union from one confusion matrix '
      'of all pixels that are not void'
    }
