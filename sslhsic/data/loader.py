"""Batches from sources: an endless shuffled stream of two views, or one pass.

The stream is a function of the seed alone: image number t·B + j of it is row j of
the global batch at step t, whatever the number of hosts, devices or workers.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator

import chex
import grain
import jax
import numpy as np

from sslhsic import parallel
from sslhsic.data import images, sources

Crop = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def whole_image(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """The crop that is none, for images that the accelerator crops."""
  del rng
  return image


def random_crop(size: int) -> Crop:
  """`images.random_resized_crop` to a size."""
  return lambda rng, image: images.random_resized_crop(rng, image, size)


def two_views(
  source: sources.Source,
  *,
  batch_size: int,
  seed: int,
  crop: Crop = whole_image,
  num_workers: int = 0,
) -> grain.DatasetIterator:
  """The endless stream of this host's batches, each image seen once an epoch.

  Args:
    source: the examples.
    batch_size: B of the global batch; a multiple of the number of hosts.
    seed: of the order and of the crops.
    crop: makes a view of an image.
    num_workers: worker processes; 0 reads in threads of this process.

  Returns:
    A Grain iterator (with `get_state` and `set_state`) of dicts 'view1', 'view2'
    [b, H, W, C] uint8, 'label' [b] int32, and 'index' [b] uint32, the image's number
    in the global stream, with b = B / hosts.
  """
  hosts = jax.process_count()
  stream = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
  stream = stream.map_with_index(_Views(crop, seed))
  stream = stream.batch(parallel.per_device(batch_size, hosts), drop_remainder=True)
  # Host h takes batches h, h + hosts, …: a contiguous part of every global batch.
  batches = stream[jax.process_index() :: hosts].to_iter_dataset(
    grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  )
  if num_workers:
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers))
  return iter(batches)


@dataclasses.dataclass(frozen=True)
class _Views:
  """Makes two views of an example, from its index in the stream."""

  crop: Crop
  seed: int

  def __call__(self, index: int, example: dict) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([self.seed, index])
    return {
      'view1': self.crop(rng, example['image']),
      'view2': self.crop(rng, example['image']),
      'label': example['label'],
      'index': np.uint32(index % 2**32),
    }


class DeviceIterator:
  """Batches put on the devices ahead of time.

  Attributes:
    state: of the input after the last batch that was given out (JSON types).
    wait_s: seconds spent waiting for batches since the start.
  """

  def __init__(self, batches: grain.DatasetIterator, prefetch: int = 2):
    self._batches = batches
    self._prefetch = prefetch
    self._queue = collections.deque()
    self.state = batches.get_state()
    self.wait_s = 0.0

  def restore(self, state: dict) -> None:
    """Goes on from a saved `state`."""
    self._batches.set_state(state)
    self._queue.clear()
    self.state = state

  def __iter__(self) -> Iterator[chex.ArrayTree]:
    return self

  def __next__(self) -> chex.ArrayTree:
    """The next batch: [devices, b/devices, ...]."""
    start = time.perf_counter()
    while len(self._queue) < self._prefetch:
      batch = parallel.shard(next(self._batches))
      self._queue.append((self._batches.get_state(), batch))
    self.state, batch = self._queue.popleft()
    self.wait_s += time.perf_counter() - start
    return batch


def one_pass(
  source: sources.Source, *, batch_size: int, crop_size: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
  """Every example once, in order, in batches of equal size.

  Args:
    source: the examples.
    batch_size: b, on this host.
    crop_size: side of the central crop; None takes whole images.

  Yields:
    Dicts 'image' [b, H, W, C] uint8, 'label' [b] int32 and 'mask' [b] bool, which is
    false on the copies that fill up the last batch.
  """
  for start in range(0, len(source), batch_size):
    wanted = np.arange(start, start + batch_size)
    examples = [source[i] for i in np.minimum(wanted, len(source) - 1)]
    crop = lambda image: images.centre_crop(image, crop_size) if crop_size else image
    yield {
      'image': np.stack([crop(example['image']) for example in examples]),
      'label': np.stack([example['label'] for example in examples]),
      'mask': wanted < len(source),
    }
