"""Trains an encoder with a decoder for depth estimation, and evaluates it.

python -m experiments.depth --config=configs/depth/shapes.py --workdir=DIR \
  --config.init_from=RUN
"""

import pathlib
from typing import Any, ClassVar

import chex
import haiku as hk
import jax
import numpy as np

from experiments import dense
from sslhsic import parallel
from sslhsic.data import dense as examples
from sslhsic.evaluation import depth
from sslhsic.networks import depth as networks
from sslhsic.plots import sheets
from sslhsic.runs import runner


class Depth(dense.DenseExperiment):
  """The experiment; see `sslhsic.runs.experiment` for the contract."""

  kind: ClassVar = 'depth'

  def _build_network(self) -> hk.TransformedWithState:
    config, training = self._config, self._config.training
    return networks.depth(
      **config.network,
      freeze_batch_norm=training.freeze_batch_norm,
      precision=training.precision,
      axis_name=parallel.AXIS_NAME,
    )

  def _training_example(self) -> examples.Depth:
    data = self._config.data
    return examples.Depth(resized=data.resized, crop=data.crop, flip=True)

  def _test_example(self) -> examples.Depth:
    data = self._config.data
    return examples.Depth(resized=data.resized, crop=data.crop, flip=False)

  def _loss(
    self,
    params: hk.Params,
    network_state: hk.State,
    images: chex.Array,
    batch: dense.Batch,
  ) -> tuple[chex.Array, tuple[hk.State, dict[str, chex.Array]]]:
    predicted, network_state = self._network.apply(
      params, network_state, None, images, True
    )
    loss = depth.reverse_huber(predicted, batch['depth'], parallel.AXIS_NAME)
    return loss, (network_state, {})

  def _predict(
    self, params: hk.Params, network_state: hk.State, batch: dense.Batch
  ) -> dict[str, chex.ArrayTree]:
    """The sums of every image's errors, and its depths."""
    images = self._prepare(batch['image'])
    predicted, _ = self._network.apply(params, network_state, None, images, False)
    sums = depth.error_sums(predicted, batch['depth'])
    return {'sums': sums, 'depth': predicted}

  # Evaluation

  def evaluate(self, global_step: int, rng: np.ndarray) -> dict[str, float]:
    """The errors over all pixels of the test split whose depth is known."""
    del global_step, rng  # Nothing is random.
    sums = [batch['sums'] for batch in self._predictions(self._test)]
    return depth.scores(jax.tree.map(lambda *x: np.concatenate(x), *sums))

  def report(self, global_step: int, directory: pathlib.Path) -> dict[str, Any]:
    """How the errors were measured, and a sheet of examples."""
    del global_step
    shown = self._shown()
    largest = max(batch['depth'].max() for batch, _ in shown)
    columns = {
      'image': [batch['image'] for batch, _ in shown],
      'truth': [sheets.of_depths(batch['depth'], largest) for batch, _ in shown],
      'prediction': [sheets.of_depths(made['depth'], largest) for _, made in shown],
    }
    sheets.sheet(columns, directory / 'depth.png')
    data = self._config.data
    size = f'resized to {"×".join(map(str, data.resized))}, ' if data.resized else ''
    crop = '×'.join(map(str, data.crop))
    protocol = (
      f'up-projections, reverse Huber loss; {self._how_trained()}, images {size}centre '
      f'of {crop} (height × width); over all pixels of known depth together'
    )
    return {
      'encoder': self._encoder.description,
      'encoder_fingerprint': self._encoder.fingerprint,
      'protocol': dict.fromkeys(('delta1', 'delta2', 'delta3', 'rms', 'rel'), protocol),
    }


if __name__ == '__main__':
  runner.main(Depth)
