"""Batches from sources: endless shuffled streams of views, or one pass.

A stream is a function of the seed alone: image number t·B + j of it is row j of the
global batch at step t, whatever the number of hosts, devices or workers. Its state is
the number of batches that were taken: a run may go on with other hosts or workers.
"""

import collections
import dataclasses
import functools
import itertools
import os
import re
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import chex
import grain
import jax
import numpy as np
from absl import flags

from sslhsic import parallel
from sslhsic.data import grouping, images, reading, slots, sources
from sslhsic.data.bad_images import BadImages
from sslhsic.data.errors import InputError

Batch = dict[str, np.ndarray]
Crop = reading.Crop

MAX_BAD_FRACTION = 0.001
READS_IN_FLIGHT = 16

# Small enough for a worker's share of the memory, and to start with after a moment.
_CHUNK_SIZE = 32
_MAX_THREADS = 16


whole_image = reading.whole_image


def random_crop(
  size: int, area: tuple[float, float] = (0.08, 1.0), interpolation: str = 'bicubic'
) -> Crop:
  """`images.random_resized_crop` to a size, of a share of the image in this range."""
  return functools.partial(
    images.random_resized_crop, size=size, area=area, interpolation=interpolation
  )


def centre_crop(size: int, interpolation: str = 'bicubic') -> Crop:
  """`images.centre_crop` to a size."""
  return functools.partial(
    _without_rng, images.centre_crop, size=size, interpolation=interpolation
  )


def shorter_side(size: int, interpolation: str = 'bicubic') -> Crop:
  """`images.shorter_side` of a size."""
  return functools.partial(
    _without_rng, images.shorter_side, size=size, interpolation=interpolation
  )


def _without_rng(
  crop: Callable[..., np.ndarray],
  rng: np.random.Generator,
  image: np.ndarray,
  **settings: Any,
) -> np.ndarray:
  del rng
  return crop(image, **settings)


def image_shape(
  source: sources.Source,
  crop: Crop,
  max_pixels: int = images.MAX_PIXELS,
  num_channels: int = 3,
) -> tuple[int, int, int]:
  """[H, W, C] of the images that a crop makes; see `reading.first_decodable`."""
  rows = range(len(source))
  example, _ = reading.first_decodable(source, rows, max_pixels, num_channels)
  return crop(np.random.default_rng(0), example['image']).shape


def views(
  source: sources.Source, *, crops: Sequence[Crop] = (whole_image,) * 2, **settings: Any
) -> 'Stream':
  """The endless stream of random views of every image, for pre-training.

  An image is decoded once for all of its views. Batches hold 'view1', 'view2', …
  [b, H, W, C], one for each crop; see `Stream`, also for the settings.
  """
  named = {f'view{number}': crop for number, crop in enumerate(crops, 1)}
  return Stream(source, make=reading.Crops(named), **settings)


def one_view(
  source: sources.Source, *, crop: Crop = whole_image, **settings: Any
) -> 'Stream':
  """The endless stream of one random view of every image, for training with labels.

  Batches hold 'image' [b, H, W, C]; see `Stream`, also for the settings.
  """
  return Stream(source, make=reading.Crops({'image': crop}), **settings)


def one_pass(
  source: sources.Source, *, crop: Crop = whole_image, **settings: Any
) -> Iterator[Batch]:
  """Every example once, in order, for an evaluation.

  Batches hold 'image' [b, H, W, C] and 'label'; see `every_example`, also for the
  settings.
  """
  return every_example(source, make=reading.Crops({'image': crop}), **settings)


class Stream:
  """This host's batches of an endless stream, each image seen once an epoch.

  A batch is a dict of the arrays that `make` makes of an example, [b, ...] each, and
  'index' [b] uint32, the example's number in the global stream, with b = B / hosts.

  Args:
    source: the examples.
    make: what makes the arrays of a decoded example, at random; for images with a label
      `reading.Crops`.
    batch_size: B of the global batch; a multiple of the number of hosts.
    seed: of the order and of the views.
    num_workers: worker processes; 0 reads in a thread of this process.
    reads_in_flight: examples that a worker reads at the same time.
    max_bad_fraction: share of the images that may be bad: corrupt, not readable, too
      large, or with targets that do not fit. In the place of one comes another image,
      the same whenever this place is read.
    max_pixels: largest number of pixels of an image; one that has more is not decoded.
    num_channels: 1 for gray; what is encoded has 3 otherwise, arrays keep theirs.
    host_index, host_count: which host this is, of how many; by default as JAX knows.
    groups: [n] bool, the group of every example, if shapes differ between two groups: a
      batch is of one of them, see `grouping.GroupedOrder`.

  Raises, when constructed:
    ValueError: the seed is negative, or the batch does not divide over the hosts.

  Raises, by `next`:
    InputError: too many images are bad, one could not be read, sizes differ, or a
      worker has ended.

  Attributes:
    bad_images: what was skipped so far.
  """

  def __init__(
    self,
    source: sources.Source,
    *,
    make: reading.Make,
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    reads_in_flight: int = READS_IN_FLIGHT,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    max_pixels: int = images.MAX_PIXELS,
    num_channels: int = 3,
    host_index: int | None = None,
    host_count: int | None = None,
    groups: np.ndarray | None = None,
  ):
    if seed < 0:
      raise ValueError(f'the seed is {seed}; use 0 or more')
    if groups is None:
      order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    else:
      order = grouping.create(groups, batch_size, seed)
    view = reading.View(source, order, seed, make, max_pixels, num_channels, groups)
    self._source, self._order = source, order
    self._chunks = _chunks(view, batch_size, host_index, host_count)
    self._num_workers = num_workers
    self._reads_in_flight = reads_in_flight
    self._batches_taken = 0
    self._received = slots.Received()
    self._iterator = None  # Workers start with the first batch.
    self.bad_images = BadImages(source, max_bad_fraction)

  def __iter__(self) -> 'Stream':
    return self

  def __next__(self) -> Batch:
    if self._iterator is None:
      self._iterator = self._start()
    try:
      chunks = itertools.islice(self._iterator, self._chunks.per_batch)
      batch, *skipped = _join(chunks, self._received)
      self.bad_images.add(*skipped)
    except Exception as error:
      # The next call would start new workers, at the batch that has failed.
      self.close()
      _check_is_worker_alive(error)
      raise
    self._batches_taken += 1
    return batch

  def _start(self) -> grain.DatasetIterator:
    # Grain counts chunks; a resumed stream reads none of those before.
    first = self._batches_taken * self._chunks.per_batch
    make = self._chunks
    if self._num_workers:
      make = dataclasses.replace(
        make, is_shared=True, reads_in_flight=self._reads_in_flight
      )
    chunks = grain.MapDataset.range(first, sys.maxsize // 2).map(make)
    # A worker is busy with one chunk at a time, and needs no threads for that.
    threads = 0 if self._num_workers else 1
    ahead = 2 * threads * self._chunks.per_batch  # Two batches.
    chunks = chunks.to_iter_dataset(grain.ReadOptions(threads, ahead))
    if self._num_workers:
      if not flags.FLAGS.is_parsed():
        # Grain reads flags of its own here, also in a script that parses none.
        flags.FLAGS.mark_as_parsed()
      chunks = chunks.mp_prefetch(
        grain.MultiprocessingOptions(self._num_workers, per_worker_buffer_size=2),
        worker_init_fn=reading.start_worker,
      )
    iterator = iter(chunks)
    # Also at the end of the program: workers leave memory behind that is not asked for.
    self._stop = weakref.finalize(self, iterator.close)
    return iterator

  def describe(self, number: int) -> dict[str, list]:
    """What the global batch of this number holds, on all hosts: JSON types.

    Returns:
      'index' of its images in the stream, 'row' of the source and its 'name'; in the
      place of a corrupt image another one has come.
    """
    size = self._chunks.batch_size
    index = range(number * size, (number + 1) * size)
    rows = [int(self._order[place]) for place in index]
    names = [self._source.name(row) for row in rows]
    return {'index': list(index), 'row': rows, 'name': names}

  def get_state(self) -> dict:
    """What `set_state` goes on from, of JSON types."""
    bad = sorted(self.bad_images.rows)
    return {'batches_taken': self._batches_taken, 'bad_images': bad}

  def set_state(self, state: dict) -> None:
    """Goes on after the batches that were taken when the state was."""
    self.close()
    self._batches_taken = state['batches_taken']
    self.bad_images.rows = set(state['bad_images'])

  def close(self) -> None:
    """Stops the workers; the next batch would start them again."""
    if self._iterator is not None:
      self._stop()
      self._received.close()
      self._iterator = None


def _check_is_worker_alive(error: Exception) -> None:
  """Translates Grain's message of a worker that has ended.

  Raises:
    InputError: that is the error.
  """
  # Grain raises a plain RuntimeError, so only the text tells this case apart.
  if isinstance(error, RuntimeError) and str(error).startswith('Worker process was'):
    code = ''.join(re.findall(r'exit code (-?\d+)', str(error)))
    raise InputError(
      f'a worker process of the loader has ended (exit code {code}); -9 is mostly for '
      'lack of memory, -7 for lack of shared memory: set config.data.num_workers lower'
    ) from error


def _chunks(
  load: Callable[[int], reading.Loaded],
  batch_size: int,
  host_index: int | None,
  host_count: int | None,
) -> reading.Chunks:
  host_index = jax.process_index() if host_index is None else host_index
  host_count = host_count or jax.process_count()
  if batch_size % host_count:
    raise ValueError(
      f'batch size {batch_size} does not divide over {host_count} hosts; use a '
      f'multiple of {host_count}'
    )
  return reading.Chunks(load, batch_size, host_index, host_count, _CHUNK_SIZE)


def _join(
  chunks: Iterator[dict], received: slots.Received
) -> tuple[Batch, np.ndarray, np.ndarray]:
  """The batch that chunks make up, the rows that were skipped in it, and the causes."""
  chunks = list(chunks)
  for chunk in chunks[1:]:
    for name, array in chunk.items():
      reading.check_same_shape(chunks[0][name].shape[1:], array.shape[1:])
  batch = {name: received.concatenate([x[name] for x in chunks]) for name in chunks[0]}
  return batch, batch.pop('skipped'), batch.pop('causes')


class DeviceIterator:
  """Batches assembled and put on the devices ahead of time, in a thread.

  The thread is the only one that uses `batches`. While a step runs, one batch is being
  assembled and one is ready.

  Args:
    batches: the stream.
    prefetch: batches that are ahead.

  Attributes:
    state: of the input after the last batch that was given out (JSON types).
    wait_s: seconds spent waiting for batches since the start.
  """

  def __init__(self, batches: Stream, prefetch: int = 2):
    self._batches = batches
    self._prefetch = prefetch
    self._thread = futures.ThreadPoolExecutor(1, 'input')
    self._ahead = collections.deque()
    self._has_failed = False
    self.state = batches.get_state()
    self.wait_s = 0.0

  def describe(self, number: int) -> dict[str, list]:
    """What the batch of this number holds; see `Stream.describe`."""
    return self._batches.describe(number)

  @property
  def num_bad_images(self) -> int:
    """Images that were skipped up to `state`."""
    return len(self.state['bad_images'])

  def restore(self, state: dict) -> None:
    """Goes on from a saved `state`."""
    self._drop()
    self._batches.set_state(state)
    self.state = state

  def close(self) -> None:
    """Stops the workers and lets go of the batches that were ahead."""
    self._drop()
    self._batches.close()

  def __iter__(self) -> Iterator[chex.ArrayTree]:
    return self

  def __next__(self) -> chex.ArrayTree:
    """The next batch: [devices, b/devices, ...]; raises what `Stream` raises."""
    start = time.perf_counter()
    self._fill()
    try:
      # It stays in the queue until it is there: a signal may end the wait.
      self.state, batch = self._ahead[0].result()
    except Exception:
      # The next call tries again, with the batch that has failed.
      self.restore(self.state)
      raise
    self._ahead.popleft()
    self._fill()
    self.wait_s += time.perf_counter() - start
    return batch

  def _fill(self) -> None:
    while len(self._ahead) < self._prefetch:
      self._ahead.append(self._thread.submit(self._assemble))

  def _assemble(self) -> tuple[dict, chex.ArrayTree]:
    """The next batch on the devices, and the state after it; runs in the thread."""
    if self._has_failed:  # Another try would start new workers.
      raise futures.CancelledError
    try:
      batch = parallel.shard(next(self._batches))
    except BaseException:
      self._has_failed = True
      raise
    # Each batch keeps the state after it: the stream itself is further ahead.
    return self._batches.get_state(), batch

  def _drop(self) -> None:
    """Forgets the batches that are ahead; waits for the one being assembled."""
    for batch in self._ahead:
      batch.cancel()
    futures.wait(self._ahead)
    self._ahead.clear()
    self._has_failed = False


def every_example(
  source: sources.Source,
  *,
  make: reading.Make,
  batch_size: int,
  max_bad_fraction: float = MAX_BAD_FRACTION,
  num_images: int | None = None,
  max_pixels: int = images.MAX_PIXELS,
  num_channels: int = 3,
  host_index: int | None = None,
  host_count: int | None = None,
) -> Iterator[Batch]:
  """Every example once, in order, in batches of equal size; read in threads.

  All hosts get equally many batches, so that they can compute on them together.

  Args:
    source: the examples.
    make: what makes the arrays of a decoded example; it is to draw nothing.
    batch_size: B of the global batch; host h gets rows [h·b, (h + 1)·b) of each, with
      b = B / hosts.
    max_bad_fraction: share of the images that may be bad.
    num_images: of which it is the share, if the source is a part of a whole.
    max_pixels: largest number of pixels of an image.
    num_channels: 1 for gray; what is encoded has 3 otherwise, arrays keep theirs.
    host_index, host_count: which host this is, of how many; by default as JAX knows.

  Yields:
    Dicts of the arrays that were made, [b, ...] each, 'row' [b] int32, the example's in
    the source, and 'mask' [b] bool, which is false on what fills up the last batch and
    in place of corrupt images.

  Raises:
    InputError: too many images are bad, or sizes differ.
  """
  example = reading.Example(source, make, max_pixels, num_channels)
  chunks = _chunks(example, batch_size, host_index, host_count)
  chunks = dataclasses.replace(chunks, reads_in_flight=READS_IN_FLIGHT)
  bad_images = BadImages(source, max_bad_fraction, num_images)
  received = slots.Received()
  # ⌈n / B⌉: the last batch may be partly filled.
  num_batches = -(-len(source) // batch_size)
  threads = min(os.cpu_count(), _MAX_THREADS)
  iterator = iter(
    grain.MapDataset.range(num_batches * chunks.per_batch)
    .map(chunks)
    .to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=2 * threads))
  )
  try:
    for _ in range(num_batches):
      batch, *skipped = _join(itertools.islice(iterator, chunks.per_batch), received)
      bad_images.add(*skipped)
      yield batch
  finally:
    # Also where the caller stops early: the threads would read on.
    iterator.close()
