"""Trains an encoder with the heads of a detector, and evaluates it.

python -m experiments.detection --config=configs/detection/shapes.py --workdir=DIR \
  --config.init_from=RUN
"""

import functools

import ml_collections

from experiments import dense
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.runs import runner
from sslhsic.tasks.detection import detector, examples, settings, task


def create_task(
  config: ml_collections.ConfigDict, source: sources.Source
) -> task.Detection:
  """The task of a configuration, with the classes of a source."""
  data, training = config.data, config.training
  if config.network.with_masks and not data.mask_size:
    raise ValueError(
      'config.network.with_masks is True, but config.data.mask_size is 0, so that the '
      'mask head has nothing to learn from; set mask_size, for instance to 112, or '
      'with_masks to False'
    )
  class_names = sources.annotations(source, 'boxes').object_classes
  example = functools.partial(
    examples.DetectionExample,
    padded=data.padded,
    max_objects=data.max_objects,
    mask_size=data.mask_size if config.network.with_masks else 0,
  )
  return task.Detection(
    architecture=config.network.architecture,
    class_names=class_names,
    network=detector.create(
      **config.network,
      settings=settings.DetectorSettings(**config.detector),
      train_encoder=training.train_encoder,
      freeze_batch_norm=training.freeze_batch_norm,
      num_classes=len(class_names),
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    ),
    training_example=example(shorter=data.shorter, longer=data.longer, flip=data.flip),
    test_example=example(
      # The test draws nothing: ranges of one value.
      shorter=(data.test_shorter, data.test_shorter, 1),
      longer=(data.test_longer, data.test_longer, 1),
      flip=False,
    ),
    axis_name=parallel.AXIS_NAME,
  )


class Detection(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  create_task = staticmethod(create_task)


if __name__ == '__main__':
  runner.main(Detection)
