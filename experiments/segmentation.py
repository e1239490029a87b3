"""Trains an encoder with a head for semantic segmentation, and evaluates it.

python -m experiments.segmentation --config=configs/segmentation/shapes.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from experiments import dense
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.runs import runner
from sslhsic.tasks.segmentation import examples, network, task


def create_task(
  config: ml_collections.ConfigDict, source: sources.Source
) -> task.Segmentation:
  """The task of a configuration, with the classes of a source."""
  data, training = config.data, config.training
  class_names = sources.annotations(source, 'segmentation').segmentation_classes
  fill = tuple(round(255 * value) for value in data.mean)  # 0 for the network.
  return task.Segmentation(
    class_names=class_names,
    network=network.create(
      **config.network,
      freeze_batch_norm=training.freeze_batch_norm or not training.train_encoder,
      num_classes=len(class_names),
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    ),
    training_example=examples.TrainingExample(
      size=data.crop_size, scales=data.scales, fill=fill
    ),
    test_example=examples.TestExample(size=data.crop_size, fill=fill),
    head=network.HEADS[config.network.head],
    axis_name=parallel.AXIS_NAME,
  )


class Segmentation(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  create_task = staticmethod(create_task)


if __name__ == '__main__':
  runner.main(Segmentation)
