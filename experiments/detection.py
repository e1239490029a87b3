"""Trains an encoder with the heads of a detector, and evaluates it.

python -m experiments.detection --config=configs/detection/shapes.py --workdir=DIR \
  --config.init_from=RUN
"""

import pathlib
from typing import Any, ClassVar, NamedTuple

import chex
import haiku as hk
import jax
import numpy as np

from experiments import dense
from sslhsic import parallel
from sslhsic.data import dense as examples
from sslhsic.data import sources
from sslhsic.detection import proposals, settings, targets
from sslhsic.evaluation import detection
from sslhsic.networks import detector
from sslhsic.plots import sheets
from sslhsic.runs import runner

_LEAST_SCORE = 0.5  # Of what is shown on the sheet of pictures.


class _Objects(NamedTuple):
  """Objects in an image: boxes [k, 4], classes [k], masks [k, G, G] of their boxes."""

  boxes: np.ndarray
  classes: np.ndarray
  masks: np.ndarray | None


def _true_objects(batch: dense.Batch) -> _Objects:
  """Those of an example's arrays that are to be found."""
  there = (batch['classes'] >= 0) & ~batch['ignore']
  masks = batch['masks'][there] / 255 if 'masks' in batch else None
  return _Objects(batch['boxes'][there], batch['classes'][there], masks)


def _found_objects(found: proposals.Detections) -> _Objects:
  """Those of an image that are certain enough to be shown."""
  there = found.scores >= _LEAST_SCORE
  masks = None if found.masks is None else found.masks[there]
  return _Objects(found.boxes[there], found.classes[there], masks)


class Detection(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  kind: ClassVar = 'boxes'

  def _build_network(self) -> detector.Detector:
    config, training = self._config, self._config.training
    if config.network.with_masks:
      for source in (self._train, self._test):
        sources.annotations(source, 'masks')
    return detector.detector(
      **config.network,
      settings=settings.Settings(**config.detector),
      freeze_batch_norm=training.freeze_batch_norm,
      num_classes=len(self._annotations.object_classes),
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    )

  def _training_example(self) -> examples.Detection:
    data = self._config.data
    return self._example(data.shorter, data.longer, flip=True)

  def _test_example(self) -> examples.Detection:
    data = self._config.data
    return self._example(data.test_shorter, data.test_longer, flip=False)

  def _example(
    self, shorter: tuple[int, int], longer: tuple[int, int], *, flip: bool
  ) -> examples.Detection:
    data = self._config.data
    return examples.Detection(
      padded=data.padded,
      shorter=shorter,
      longer=longer,
      max_objects=data.max_objects,
      mask_size=data.mask_size if self._config.network.with_masks else 0,
      flip=flip,
    )

  def _loss(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: dense.Batch,
  ) -> tuple[chex.Array, tuple[hk.State, dict[str, chex.Array]]]:
    names = 'boxes', 'classes', 'ignore', 'masks'
    truth = targets.Truth(*(batch.get(name) for name in names))
    losses, network_state = self._network.losses(
      params, network_state, None, images, batch['size'], truth, self._keys(batch, 1)
    )
    return losses.pop('loss'), (network_state, losses)

  def _predict(
    self, params: hk.Params, network_state: hk.State, batch: dense.Batch
  ) -> dict[str, chex.ArrayTree]:
    """What is found in each image, and what leads back to the example."""
    detections, _ = self._network.detect(
      params, network_state, None, self._prepare(batch['image']), batch['size']
    )
    where = {name: batch[name] for name in ('row', 'size', 'scale')}
    return where | {'detections': detections}

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """AP50 of VOC, and AP of COCO of boxes and masks, of the test split."""
    del global_step, rng  # Nothing is random.
    truths, founds = [], []
    for batch in self._predictions(self._test):
      for i in range(len(batch['row'])):
        truth, found = self._judged(jax.tree.map(lambda x, i=i: x[i], batch))
        truths.append(truth)
        founds.append(found)
    num_classes = len(self._annotations.object_classes)
    self._ap50 = detection.voc_average_precisions(truths, founds, num_classes)
    scores = {'voc_ap50': float(np.nanmean(self._ap50))}
    kinds = [('box', 'boxes')]
    if self._config.network.with_masks:
      kinds.append(('mask', 'masks'))
    for prefix, kind in kinds:
      ap = detection.coco_average_precision(truths, founds, num_classes, kind)
      scores |= {f'{prefix}_{name}': score for name, score in ap.items()}
    return scores

  def _judged(self, made: dict) -> tuple[detection.Truth, detection.Found]:
    """What is true of an example, and what was found, in its own pixels."""
    height, width = np.round(made['size'] / made['scale']).astype(int)
    size = int(height), int(width)
    truth = detection.truth(self._test[int(made['row'])], size)
    return truth, detection.found(made['detections'], made['scale'], size)

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """AP50 of every class after `evaluate`, and a sheet of examples."""
    del global_step
    shown = self._shown()
    columns = {
      'truth': [self._picture(batch, _true_objects(batch)) for batch, _ in shown],
      'prediction': [
        self._picture(batch, _found_objects(made['detections']))
        for batch, made in shown
      ],
    }
    sheets.sheet(columns, directory / 'detection.png')
    print(f'AP50 {np.nanmean(self._ap50):.3f}, of {self._encoder.description}')
    named = zip(self._annotations.object_classes, self._ap50, strict=True)
    return {
      'ap50': {name: float(ap) for name, ap in named if not np.isnan(ap)},
      'encoder': self._encoder.description,
      'encoder_fingerprint': self._encoder.fingerprint,
      'protocol': self._protocol(),
    }

  def _picture(self, batch: dense.Batch, objects: _Objects) -> np.ndarray:
    """An image with objects, in the size in which the network saw it."""
    height, width = batch['size'].astype(int)
    size = int(height), int(width)
    masks = objects.masks
    if masks is not None:
      pairs = zip(masks, objects.boxes, strict=True)
      masks = [detection.paste_mask(mask, box, size) for mask, box in pairs]
    names = self._annotations.object_classes
    image = batch['image'][:height, :width]
    return sheets.of_objects(image, objects.boxes, objects.classes, names, masks)

  def _protocol(self) -> dict[str, str]:
    """How each score was measured."""
    config, data = self._config, self._config.data
    how = (
      f'{config.network.architecture} detector; {self._how_trained()}, images scaled '
      f'to at most {data.test_shorter[0]} px on the shorter and {data.test_longer[0]} '
      'px on the longer side; '
    )
    coco = how + "COCO's average precision by pycocotools, of "
    protocol = {
      'voc_ap50': how + '11-point average precision at an IoU of 0.5 as in PASCAL VOC '
      '2007, mean over the classes',
      'box_ap': coco + 'boxes',
    }
    if config.network.with_masks:
      protocol['mask_ap'] = coco + 'masks'
    return protocol


if __name__ == '__main__':
  runner.main(Detection)
