"""Trains an encoder with a head for depth estimation, and evaluates it.

python -m experiments.depth --config=configs/depth/shapes.py --workdir=DIR \
  --config.init_from=RUN
"""

import functools

import ml_collections

from experiments import dense
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.runs import runner
from sslhsic.tasks.depth import examples, network, task


def create_task(
  config: ml_collections.ConfigDict, source: sources.Source
) -> task.Depth:
  """The task of a configuration."""
  del source  # Depths of all sources are in metres.
  data, training = config.data, config.training
  example = functools.partial(
    examples.DepthExample, resized=data.resized, crop=data.crop
  )
  return task.Depth(
    network=network.create(
      **config.network,
      freeze_batch_norm=training.freeze_batch_norm or not training.train_encoder,
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    ),
    training_example=example(flip=True),
    test_example=example(flip=False),
    head=network.HEADS[config.network.head],
    axis_name=parallel.AXIS_NAME,
  )


class Depth(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  create_task = staticmethod(create_task)


if __name__ == '__main__':
  runner.main(Depth)
