"""Trains an encoder with an FCN head for semantic segmentation, and evaluates it.

python -m experiments.segmentation --config=configs/segmentation/shapes.py \
  --workdir=DIR --config.init_from=RUN
"""

import pathlib
from typing import Any, ClassVar

import chex
import haiku as hk
import jax.numpy as jnp
import numpy as np

from experiments import dense
from sslhsic import parallel
from sslhsic.data import dense as examples
from sslhsic.evaluation import segmentation
from sslhsic.networks import segmentation as networks
from sslhsic.plots import sheets
from sslhsic.runs import runner


class Segmentation(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  kind: ClassVar = 'segmentation'

  def _build_network(self) -> hk.TransformedWithState:
    config, training = self._config, self._config.training
    return networks.segmentation(
      **config.network,
      freeze_batch_norm=training.freeze_batch_norm,
      num_classes=len(self._annotations.segmentation_classes),
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    )

  def _training_example(self) -> examples.SegmentationTraining:
    data = self._config.data
    return examples.SegmentationTraining(
      size=data.crop_size, scales=data.scales, fill=self._fill
    )

  def _test_example(self) -> examples.SegmentationTest:
    return examples.SegmentationTest(size=self._config.data.crop_size, fill=self._fill)

  @property
  def _fill(self) -> tuple[int, ...]:
    """The mean colour, which is 0 for the network."""
    return tuple(round(255 * value) for value in self._config.data.mean)

  def _loss(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: dense.Batch,
  ) -> tuple[chex.Array, tuple[hk.State, dict[str, chex.Array]]]:
    logits, network_state = self._network.apply(
      params, network_state, None, images, True
    )
    loss = segmentation.cross_entropy(logits, batch['segmentation'], parallel.AXIS_NAME)
    return loss, (network_state, {})

  def _predict(
    self, params: hk.Params, network_state: hk.State, batch: dense.Batch
  ) -> dict[str, chex.Array]:
    """The confusion matrix of every image, and the classes of its pixels."""
    images = self._prepare(batch['image'])
    logits, _ = self._network.apply(params, network_state, None, images, False)
    return {
      'confusion': segmentation.confusion_matrices(logits, batch['segmentation']),
      'classes': jnp.argmax(logits, axis=-1).astype(jnp.uint8),
    }

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """Mean IoU over the classes, and accuracy over the pixels, of the test split."""
    del global_step, rng  # Nothing is random.
    confusion = sum(
      batch['confusion'].sum(axis=0, dtype=np.int64)
      for batch in self._predictions(self._test)
    )
    self._iou = segmentation.intersection_over_union(confusion)
    return {
      'mean_iou': float(np.nanmean(self._iou)),
      'pixel_accuracy': float(np.trace(confusion) / max(confusion.sum(), 1)),
    }

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """IoU of every class after `evaluate`, and a sheet of examples."""
    del global_step
    shown = self._shown()
    columns = {
      'image': [batch['image'] for batch, _ in shown],
      'truth': [sheets.of_classes(batch['segmentation']) for batch, _ in shown],
      'prediction': [sheets.of_classes(made['classes']) for _, made in shown],
    }
    sheets.sheet(columns, directory / 'segmentation.png')
    print(f'mean IoU {np.nanmean(self._iou):.3f}, of {self._encoder.description}')
    names = self._annotations.segmentation_classes
    return {
      'iou': {
        name: float(iou)
        for name, iou in zip(names, self._iou, strict=True)
        if not np.isnan(iou)
      },
      'encoder': self._encoder.description,
      'encoder_fingerprint': self._encoder.fingerprint,
      'protocol': {
        'mean_iou': f'FCN head; {self._how_trained()}, the centre of '
        f'{self._config.data.crop_size} px of each image at one scale; intersection '
        'over union from one confusion matrix of all pixels that are not void'
      },
    }


if __name__ == '__main__':
  runner.main(Segmentation)
