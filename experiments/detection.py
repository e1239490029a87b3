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
      freeze_batch_norm=training.freeze_batch_norm,
      num_classes=len(class_names),
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    ),
    training_example=example(shorter=data.shorter, longer=data.longer, flip=True),
    test_example=example(
      shorter=data.test_shorter, longer=data.test_longer, flip=False
    ),
  )


Detection = functools.partial(dense.DenseExperiment, create_task)

if __name__ == '__main__':
  runner.main(Detection)
