"""What the evaluations share: how they read images, and the frozen encoder."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import ml_collections
import numpy as np

from sslhsic import microbatches, parallel, storage
from sslhsic.data import fingerprint as fingerprints
from sslhsic.data import loader, resampling, sources
from sslhsic.evaluation import encoder
from sslhsic.runs import processes, workdir
from sslhsic.weights import pretrained
from sslhsic.weights import settings as settings_lib

# Parts of the data that an evaluation may have, in `config.data`.
PARTS = ('train', 'validation', 'test')


class KnownData:
  """Part of an experiment that knows its data sets again, wherever they lie.

  Attributes:
    data_sets: the sources by their field of the configuration.
  """

  data_sets: Mapping[str, sources.Source]

  @functools.cached_property
  def _fingerprints(self) -> dict[str, list]:
    return {
      field: list(fingerprints.fingerprint(source))
      for field, source in self.data_sets.items()
    }

  @property
  def data_fingerprints(self) -> dict[str, list]:
    """Of the data sets, by field; JSON types."""
    return self._fingerprints

  @data_fingerprints.setter
  def data_fingerprints(self, value: dict[str, list]) -> None:
    # Fields of either: a split that came or went makes another experiment.
    for field in sorted(value.keys() | self._fingerprints.keys()):
      if field not in value or field not in self._fingerprints:
        raise ValueError(
          f'{field} was {"" if field in value else "not "}given when this run was '
          'begun; give it as then, or use another --workdir'
        )
      found, here = (
        fingerprints.Fingerprint(*x[field]) for x in (value, self._fingerprints)
      )
      fingerprints.check(found, here, field)


class OneInput(KnownData):
  """Part of an experiment that reads one stream, and starts from one encoder.

  Attributes:
    _config: the configuration.
    _input: the stream, None unless it trains.
    _encoder: where it starts, with a `fingerprint`; a checkpoint holds no more of it.
  """

  NON_BROADCAST_CHECKPOINT_ATTRS: ClassVar = {
    'input_state': 'input_state',
    'fingerprint': 'fingerprint',
    'data_fingerprints': 'data_fingerprints',
  }
  FREE_FIELDS: ClassVar = ('init_from', *(f'data.{part}.source' for part in PARTS))

  _config: ml_collections.ConfigDict
  _input: loader.DeviceIterator | None
  _encoder: encoder.FrozenEncoder | pretrained.Start

  @property
  def input_state(self) -> dict[str, Any]:
    """Where the input is in its stream."""
    return self._input.state

  @input_state.setter
  def input_state(self, value: dict[str, Any]) -> None:
    if self._input:
      self._input.restore(value)

  @property
  def fingerprint(self) -> str:
    """Of the encoder that the run began with."""
    return self._encoder.fingerprint

  @fingerprint.setter
  def fingerprint(self, value: str) -> None:
    pretrained.check_fingerprint(
      value, self._encoder.fingerprint, self._config.init_from
    )

  def describe_batch(self, global_step: int) -> dict[str, list]:
    """What a step has seen; see `loader.Stream.describe`."""
    return self._input.describe(global_step)

  @property
  def data_wait_s(self) -> float:
    """Seconds that steps have waited for data."""
    return self._input.wait_s


def extra_tests(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The further test sets of `config.evaluation`, by name.

  Raises:
    ValueError: one does not say its source or its split.
  """
  found = dict(config.evaluation.extra_tests)
  for name, part in found.items():
    missing = [x for x in ('source', 'split') if not getattr(part, x, None)]
    if missing:
      raise ValueError(
        f'config.evaluation.extra_tests.{name} has no {" and no ".join(missing)}; give '
        "{'source': SOURCE, 'split': SPLIT}"
      )
  return found


def check_microbatches(config: ml_collections.ConfigDict) -> None:
  """Checks that a device's share of a training batch divides into microbatches.

  Raises:
    ValueError: it does not, or the batch does not divide over the devices.
  """
  training = config.training
  share = parallel.per_device(training.batch_size)
  microbatches.check(share, training.num_microbatches)


def check_encoder(path: storage.Path, fingerprint: str, init_from: str) -> None:
  """Checks that results in a working directory are of the same encoder, if any are.

  Raises:
    ValueError: they are of another one.
  """
  read = lambda: workdir.read_json(path / 'results.json').get('encoder_fingerprint')
  # The other processes may not see the file system of the first.
  found = processes.from_first((processes.first_does(read) or '').encode()).decode()
  if found:
    pretrained.check_fingerprint(found, fingerprint, init_from)


def frozen_encoder(
  config: ml_collections.ConfigDict, source: sources.Source
) -> encoder.FrozenEncoder:
  """The encoder of a configuration, for images like those of a source.

  Raises:
    ValueError: the configuration does not fit its checkpoint, or the batch size the
      devices.
  """
  network, data = config.network, config.data
  settings = settings_lib.Settings(
    encoder=network.encoder,
    encoder_options=network.encoder_options,
    crop_size=data.crop_size,
    mean=data.mean,
    std=data.std,
    description=config.init_from,
  )
  return encoder.FrozenEncoder(
    settings,
    init_from=config.init_from,
    source=source,
    crop=evaluation_crop(data),
    batch_size=config.evaluation.batch_size,
    max_bad_fraction=data.max_bad_fraction,
    max_pixels=data.max_pixels,
    seed=config.seed,
  )


def classes_there(source: sources.Source) -> np.ndarray:
  """The classes that a source has images of, [C] bool."""
  return np.isin(np.arange(sources.single_label_classes(source)), source.labels)


def training_input(
  config: ml_collections.ConfigDict, source: sources.Source
) -> loader.DeviceIterator:
  """Endless batches of one random view, on the devices; see `loader.one_view`."""
  data = config.data
  crop = loader.whole_image
  if data.crop_size:
    resampling.check(data.interpolation, 'config.data.interpolation')
    crop = loader.random_crop(data.crop_size, interpolation=data.interpolation)
  batches = loader.one_view(
    source,
    batch_size=config.training.batch_size,
    seed=config.seed,
    crop=crop,
    num_workers=data.num_workers,
    max_bad_fraction=data.max_bad_fraction,
    max_pixels=data.max_pixels,
    num_channels=len(data.mean),
  )
  return loader.DeviceIterator(batches)


def one_pass(
  config: ml_collections.ConfigDict, source: sources.Source
) -> Iterator[loader.Batch]:
  """Every example once, cropped as configured; see `loader.one_pass`."""
  return loader.one_pass(
    source,
    batch_size=config.evaluation.batch_size,
    crop=evaluation_crop(config.data),
    max_bad_fraction=config.data.max_bad_fraction,
    max_pixels=config.data.max_pixels,
    num_channels=len(config.data.mean),
  )


def image_shape(
  config: ml_collections.ConfigDict, source: sources.Source
) -> tuple[int, int, int]:
  """[H, W, C] of the images of `one_pass`."""
  data = config.data
  return loader.image_shape(
    source, evaluation_crop(data), data.max_pixels, len(data.mean)
  )


def evaluation_crop(data: ml_collections.ConfigDict) -> loader.Crop:
  """The crop of `config.data`; see `encoder.crop`."""
  return encoder.crop(
    data.crop_size, data.evaluation_crop, data.evaluation_interpolation
  )


def describe(config: ml_collections.ConfigDict) -> str:
  """Which images were embedded, in words."""
  data = config.data
  crop = ''
  if data.crop_size:
    crop = (
      f'{data.evaluation_crop} crop of {data.crop_size} px, '
      f'{data.evaluation_interpolation}'
    )
  return f'embedding of the frozen encoder, {crop or "whole images"}'
