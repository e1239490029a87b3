"""What limits the loader: reads that answer late, and the parts of a large batch.

Part of `python -m benchmarks.loader`. Reads that sleep stand for a bucket or a network
file system. The parts of a batch are timed one by one, on the same images, in the
process that trains: the slowest limits, since they run at the same time in a training.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from sslhsic import parallel
from sslhsic.data import images, loader, slots, sources
from sslhsic.tables import printed

_CHUNK_SIZE = 32  # Images in an array of a worker.
_SAMPLE = 512  # Images of which reading, decoding and cropping are timed.


@dataclasses.dataclass(frozen=True)
class Late:
  """A source whose reads take longer.

  Attributes:
    source: the examples.
    seconds: added to each read.
  """

  source: sources.Source
  seconds: float

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict:
    time.sleep(self.seconds)
    return self.source[index]

  def name(self, index: int) -> str:
    """As the source calls it."""
    return self.source.name(index)


def late_reads(
  source: sources.Source,
  in_flight: tuple[int, ...],
  *,
  size: int,
  late_s: float,
  seconds: float,
) -> list[dict]:
  """Images per second of one worker, for several numbers of reads in flight.

  Args:
    source: images to be read.
    in_flight: reads at the same time.
    size: of the two views, in pixels.
    late_s: seconds that a read takes longer.
    seconds: how long to measure.
  """
  rows = []
  for count in in_flight:
    stream = loader.views(
      Late(source, late_s),
      batch_size=_CHUNK_SIZE,
      seed=0,
      crops=(loader.random_crop(size),) * 2,
      num_workers=1,
      reads_in_flight=count,
    )
    for _ in range(4):  # The worker starts, and what it may buffer is taken.
      next(stream)
    start = time.perf_counter()
    batches = itertools.takewhile(
      lambda _, start=start: time.perf_counter() - start < seconds, stream
    )
    num_images = _CHUNK_SIZE * (1 + sum(1 for _ in batches))
    rows.append(
      {
        'in_flight': count,
        'images_per_second': num_images / (time.perf_counter() - start),
        'at_most': count / late_s,
      }
    )
    stream.close()
  return rows


def parts(
  source: sources.Source, *, batch_size: int, size: int, num_workers: int, rounds: int
) -> dict:
  """Seconds that a batch spends in each part, and for the whole loader.

  Reading, decoding and cropping are timed in one process, and scaled to the share of
  the batch that each of `num_workers` processes has.

  Args:
    source: images to be read.
    batch_size: B, over all devices.
    size: of the two views, in pixels.
    num_workers: processes that read.
    rounds: batches that are timed.
  """
  share = batch_size / max(num_workers, 1) / min(_SAMPLE, len(source))
  sample = range(min(_SAMPLE, len(source)))
  crop, rng = loader.random_crop(size), np.random.default_rng(0)
  views = np.zeros((2, _CHUNK_SIZE, size, size, 3), np.uint8)
  chunks = [views] * (batch_size // _CHUNK_SIZE)
  received = slots.Received()

  def decode_and_crop():
    for example in examples:
      image = images.decode(example['image'])
      for _ in range(2):
        crop(rng, image)

  def assemble():
    return {
      f'view{view + 1}': received.concatenate([chunk[view] for chunk in chunks])
      for view in range(2)
    }

  examples = [source[row] for row in sample]
  batch = assemble()
  seconds = {
    'read': share * _time(lambda: [source[row] for row in sample], rounds),
    'decode and crop': share * _time(decode_and_crop, rounds),
    'assembly': _time(assemble, rounds),
    'transfer': _time(lambda: jax.block_until_ready(parallel.shard(batch)), rounds),
  }
  return {
    'batch_size': batch_size,
    'size': size,
    'workers': num_workers,
    'devices': len(parallel.local_devices()),
    'seconds': seconds,
    'limited_by': max(seconds, key=seconds.get),
    **_whole(source, batch_size, crop, num_workers, rounds),
  }


def _whole(source, batch_size, crop, num_workers, rounds) -> dict[str, float]:
  """Seconds of a batch of the loader, and of the main thread for one that is ready."""
  stream = loader.views(
    source, batch_size=batch_size, seed=0, crops=(crop,) * 2, num_workers=num_workers
  )
  batches = loader.DeviceIterator(stream)
  for _ in range(3):  # The first, and those that were made while it was waited for.
    jax.block_until_ready(next(batches))
  whole = _time(lambda: jax.block_until_ready(next(batches)), rounds)
  time.sleep(4 * whole)
  ready = _time(lambda: next(batches), 1)
  batches.close()
  return {'loader': whole, 'main_thread': ready}


def _time(function: Callable[[], object], rounds: int) -> float:
  """Median seconds of a call."""
  timed = []
  for _ in range(rounds):
    start = time.perf_counter()
    function()
    timed.append(time.perf_counter() - start)
  return statistics.median(timed)


def late_table(rows: list[dict]) -> str:
  """What `late_reads` gives, as lines of text."""
  cells = [('in flight', 'images/s', 'at most')]
  for row in rows:
    speeds = (row['images_per_second'], row['at_most'])
    cells.append((row['in_flight'], *(f'{speed:.0f}' for speed in speeds)))
  return f'One worker whose reads answer late\n{printed.columns(cells, 12)}'


def parts_table(measured: dict) -> str:
  """What `parts` gives, as lines of text."""
  size = measured['batch_size']
  cells = [('part', 'ms a batch', 'images/s')]
  seconds = measured['seconds'] | {'the whole loader': measured['loader']}
  for name, spent in seconds.items():
    cells.append((name, f'{1e3 * spent:.1f}', f'{size / spent:.0f}'))
  cells.append(('main thread', f'{1e3 * measured["main_thread"]:.2f}', ''))
  return (
    f'A batch of {size}, two views of {measured["size"]} px, for '
    f'{measured["devices"]} devices from {measured["workers"]} workers\n'
    f'{printed.columns(cells, 14, first=18)}\n{measured["limited_by"]} limits'
  )
