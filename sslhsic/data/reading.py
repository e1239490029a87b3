"""What a worker of the loader does: read, decode and crop the examples of a chunk.

Workers import this module and not the loader, to start without JAX.
"""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import cv2
import numpy as np
from absl import logging

from sslhsic.data import images, slots, targets
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import DecodeError, InputError, one_line
from sslhsic.data.source import Source, take

Crop = Callable[[np.random.Generator, np.ndarray], np.ndarray]
# From a decoded example to the arrays of a batch, whose shapes are always the same.
Make = Callable[[np.random.Generator, dict], dict[str, np.ndarray]]
# Rows of a source that cannot be used, and why.
Bad = dict[int, str]
# The arrays of an example, and the rows of its source that were skipped for it.
Loaded = tuple[dict[str, np.ndarray], Bad]

_VALUES = ('label', 'metadata')  # Arrays of an example that no crop changes.
# Images that are tried in place of one that cannot be decoded.
_MAX_TRIES = 100
# Seconds before a read that has failed is tried again; network file systems recover.
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# Errors that trying again does not change: the file is not there, or not for us.
_LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def start_worker(index: int, count: int) -> None:
  """Makes a process a worker: it ends with the loader, and only then.

  A signal to the whole job is for the loader's process, which still needs its batch. A
  killed one can tell its workers nothing: they watch it.
  """
  del index, count
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  # `sys.exit` would end this thread alone.
  os._exit(1)


def first_decodable(
  source: Source,
  rows: Iterable[int],
  max_pixels: int = images.MAX_PIXELS,
  num_channels: int = 3,
) -> tuple[dict, Bad]:
  """The first of these examples that can be used.

  A read that fails for now is tried again; a file that is not there is a bad image.

  Args:
    source: the examples.
    rows: of the source.
    max_pixels: of an image; one that has more is not decoded.
    num_channels: 1 for gray; what is encoded has 3 otherwise, arrays keep theirs.

  Returns:
    The example, with 'image' [H, W, C] uint8 and, if it has one, 'segmentation' [H, W]
    uint8; and the rows before, with the cause of each.

  Raises:
    InputError: none of many can be used, or one could not be read in many tries.
  """
  rows = itertools.islice(rows, _MAX_TRIES)
  return _first_made(source, rows, max_pixels, num_channels, lambda example: example)


def _first_made(
  source: Source,
  rows: Iterable[int],
  max_pixels: int,
  num_channels: int,
  make: Callable[[dict], dict[str, np.ndarray]],
) -> Loaded:
  """What is made of the first example that can be used; see `first_decodable`."""
  bad: Bad = {}
  tries = 0
  for row in rows:
    tries += 1
    made, cause = _made(source, row, max_pixels, num_channels, make)
    if made is not None:
      return made, bad
    bad[row] = cause
  if not bad:
    raise InputError('there is no example')
  row, cause = next(iter(bad.items()))
  raise InputError(
    f'{tries} images in a row cannot be used, {source.name(row)} among them: '
    f'{cause}; check the data set'
  )


def _made(
  source: Source,
  row: int,
  max_pixels: int,
  num_channels: int,
  make: Callable[[dict], dict[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray] | None, str]:
  """What is made of an example; or None, and why it cannot be used."""
  try:
    example = _decode(source, _read(source, row), max_pixels, num_channels)
    return make(example), ''
  except DecodeError as error:
    return None, str(error)
  except cv2.error as error:
    return None, one_line(error)
  except _LASTING as error:
    return None, f'it cannot be read: {error.strerror or one_line(error)}'


def _read(source: Source, row: int) -> dict:
  """An example; tries again what may be over soon.

  Raises:
    InputError: it was not.
  """
  # None marks the last try, which no wait follows.
  for seconds in (*_BACKOFF_S, None):
    try:
      return source[row]
    except _LASTING:
      raise
    except OSError as error:
      if seconds is None:
        raise InputError(
          f'cannot read {source.name(row)} in {len(_BACKOFF_S) + 1} tries: {error}; '
          'check the disk or the network'
        ) from error
      logging.warning(
        'cannot read %s (%s): next try in %g s', source.name(row), error, seconds
      )
    time.sleep(seconds)
  raise AssertionError  # The last try returns or raises.


def _decode(source: Source, example: dict, max_pixels: int, num_channels: int) -> dict:
  decode = images.decode_gray if num_channels == 1 else images.decode
  decoded = example | {'image': decode(example['image'], max_pixels)}
  if 'segmentation' in example:
    decoded['segmentation'] = images.decode_classes(example['segmentation'], max_pixels)
  targets.check(decoded, getattr(source, 'annotations', Annotations()))
  return decoded


def whole_image(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """The crop that is none, for images that the accelerator crops."""
  del rng
  return image


@dataclasses.dataclass(frozen=True)
class Crops:
  """Makes views of an image, with its label and, if the source has it, its metadata.

  Attributes:
    crops: what makes each view, by its name.
  """

  crops: Mapping[str, Crop]

  def __call__(self, rng: np.random.Generator, example: dict) -> dict[str, np.ndarray]:
    """The views [H, W, C] by their name, 'label', and 'metadata' if there is any."""
    views = {name: crop(rng, example['image']) for name, crop in self.crops.items()}
    return views | {name: example[name] for name in _VALUES if name in example}

  @property
  def are_whole(self) -> bool:
    """Whether every view is the image as it is."""
    return all(crop is whole_image for crop in self.crops.values())


def _at_once(
  load: 'View | Example', indices: range
) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
  """Rows and arrays of several places, where nothing is to be decoded or cropped.

  For small images in memory the work of Python for each of them would limit a GPU.
  """
  if not (isinstance(load.make, Crops) and load.make.are_whole):
    return None
  rows = np.array([load.row(index) for index in indices])
  try:
    examples = take(load.source, rows)
  except OSError:  # Read one by one, each is tried again.
    return None
  if examples is None:
    return None
  values = {name: examples[name] for name in _VALUES if name in examples}
  return rows, dict.fromkeys(load.make.crops, examples['image']) | values


@dataclasses.dataclass(frozen=True)
class View:
  """Random views of the examples of the endless stream, by their place in it.

  In place of an image that cannot be decoded comes another one, drawn at random from
  the key of the place: the stream stays the same whoever reads it.

  Attributes:
    source: the examples.
    order: index in the stream -> row of the source.
    seed: of the views.
    make: what makes the arrays of an example.
    max_pixels: of an image.
    num_channels: see `first_decodable`.
    groups: of every row, if there are any; the other image is of the same group.
  """

  source: Source
  order: Sequence[int]
  seed: int
  make: Make
  max_pixels: int = images.MAX_PIXELS
  num_channels: int = 3
  groups: np.ndarray | None = None

  def row(self, index: int) -> int:
    """The row of the source at a place in the stream, which may turn out to be bad."""
    return int(self.order[index])

  def __call__(self, index: int) -> Loaded:
    """The arrays of the example at a place in the stream."""
    rng = np.random.default_rng([self.seed, index])
    row = self.row(index)
    # Lazy: numbers are drawn only after a bad image, and good ones keep their views.
    others = (int(rng.integers(len(self.source))) for _ in itertools.count())
    if self.groups is not None:
      others = (x for x in others if self.groups[x] == self.groups[row])
    rows = itertools.islice(itertools.chain([row], others), _MAX_TRIES)
    make = functools.partial(self.make, rng)
    arrays, bad = _first_made(
      self.source, rows, self.max_pixels, self.num_channels, make
    )
    # JAX computes with 32-bit integers, so the number wraps around after 2³² examples.
    return arrays | {'index': np.uint32(index % 2**32)}, bad

  def at_once(self, indices: range) -> dict[str, np.ndarray] | None:
    """The arrays of several places, if they are in memory as they are needed."""
    found = _at_once(self, indices)
    if found is None:
      return None
    return found[1] | {'index': (np.array(indices) % 2**32).astype(np.uint32)}


@dataclasses.dataclass(frozen=True)
class Example:
  """The examples of one pass, by their row; beyond the last one, copies of it.

  Attributes:
    source: the examples.
    make: what makes the arrays of an example.
    max_pixels: of an image.
    num_channels: see `first_decodable`.
    memo: what has been found before, the same for all parts of a pass.
  """

  source: Source
  make: Make
  max_pixels: int = images.MAX_PIXELS
  num_channels: int = 3
  memo: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

  def row(self, index: int) -> int:
    """The row itself, or the last one beyond it."""
    return min(index, len(self.source) - 1)

  def __call__(self, index: int) -> Loaded:
    """The example of a row."""
    size, row = len(self.source), self.row(index)
    # A pass draws nothing at random.
    make = functools.partial(self.make, np.random.default_rng(0))
    settings = self.max_pixels, self.num_channels, make
    arrays, cause = _made(self.source, row, *settings)
    bad = {} if arrays is not None else {row: cause}
    if arrays is None:
      # The first good image fills the place of every bad one; the mask hides it.
      if 'filler' not in self.memo:
        self.memo['filler'], _ = _first_made(self.source, range(size), *settings)
      arrays = self.memo['filler']
    is_example = index < size and not bad
    return arrays | {'row': np.int32(row), 'mask': np.bool_(is_example)}, bad

  def at_once(self, indices: range) -> dict[str, np.ndarray] | None:
    """The arrays of several rows, if they are in memory as they are needed."""
    found = _at_once(self, indices)
    if found is None:
      return None
    rows, arrays = found
    mask = np.array(indices) < len(self.source)
    return arrays | {'row': rows.astype(np.int32), 'mask': mask}


class ReadAhead:
  """A source of which some examples are being read, in threads of this process.

  Args:
    source: the source.
    rows: those that are read; each is given out once, and read again when asked for
      again.
    in_flight: the most reads at the same time, over all of this process.
  """

  def __init__(self, source: Source, rows: Iterable[int], in_flight: int):
    self._source = source
    threads = _threads(in_flight)
    self._futures = {
      row: threads.submit(source.__getitem__, row) for row in dict.fromkeys(rows)
    }

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, row: int) -> dict:
    future = self._futures.pop(row, None)
    return future.result() if future else self._source[row]


@functools.cache
def _threads(count: int) -> futures.ThreadPoolExecutor:
  """Threads of this process, which wait for files most of the time."""
  return futures.ThreadPoolExecutor(count, 'read')


@dataclasses.dataclass(frozen=True)
class Chunks:
  """A host's batches in chunks, which bound the memory of a worker.

  Attributes:
    load: index -> arrays of an example.
    batch_size: B, of the global batch; rows [h·b, (h + 1)·b) are those of host h.
    host_index: h.
    host_count: number of hosts; b = B / host_count.
    chunk_size: examples of a chunk; the last of a batch may have less.
    is_shared: whether what is large is put into `slots`, for another process.
    reads_in_flight: examples that a process reads at the same time, in threads, so that
      a disk or bucket that answers late is waited for once; 1: read where needed.
  """

  load: View | Example
  batch_size: int
  host_index: int
  host_count: int
  chunk_size: int
  is_shared: bool = False
  reads_in_flight: int = 1

  @property
  def per_batch(self) -> int:
    """Chunks of a host's batch."""
    return -(-self.batch_size // (self.host_count * self.chunk_size))

  def __call__(self, number: int) -> dict[str, np.ndarray | slots.Sent]:
    """The arrays of a chunk, [chunk, ...] each; 'skipped', rows, and their 'causes'."""
    step, part = divmod(number, self.per_batch)
    share = self.batch_size // self.host_count
    # Place in the global stream of this host's first example of the batch.
    first = step * self.batch_size + self.host_index * share
    rows = range(share)[part * self.chunk_size : (part + 1) * self.chunk_size]
    load = self.load
    arrays, results, skipped = {}, {}, {}
    taken = load.at_once(range(first + rows.start, first + rows.stop))
    if taken is not None:
      for name, value in taken.items():
        array, results[name] = self._empty(value.shape, value.dtype)
        array[...] = value
      return _with_skipped(results, {})
    if self.reads_in_flight > 1:
      numbers = [load.row(first + row) for row in rows]
      ahead = ReadAhead(load.source, numbers, self.reads_in_flight)
      load = dataclasses.replace(load, source=ahead)
    # One after the other into its place: memory is written once, and little at a time.
    for place, row in enumerate(rows):
      loaded, bad = load(first + row)
      for name, value in loaded.items():
        if place == 0:
          shape = (len(rows), *value.shape)
          arrays[name], results[name] = self._empty(shape, value.dtype)
        _put(arrays[name], place, value)
      skipped |= bad
    return _with_skipped(results, skipped)

  def _empty(
    self, shape: tuple[int, ...], dtype: np.dtype
  ) -> tuple[np.ndarray, np.ndarray | slots.Sent]:
    """An array to be written, and what stands for it in the result."""
    # Labels and numbers, [n] or [n, C], are small enough to be pickled.
    if self.is_shared and len(shape) > 2:
      return _own_slots().empty(shape, dtype)
    array = np.empty(shape, dtype)
    return array, array


def _with_skipped(arrays: dict, skipped: Bad) -> dict[str, np.ndarray | slots.Sent]:
  return arrays | {
    'skipped': np.array(list(skipped), np.int64),
    'causes': np.array(list(skipped.values()), np.str_),
  }


@functools.cache
def _own_slots() -> slots.Slots:
  """Those of this process."""
  return slots.Slots()


def _put(array: np.ndarray, place: int, value: np.ndarray) -> None:
  check_same_shape(array.shape[1:], value.shape)
  array[place] = value


def check_same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> None:
  """Checks that two images can be in one batch.

  Raises:
    InputError: they differ in size, or in the number of channels.
  """
  if one == other:
    return
  if one[:2] == other[:2]:
    raise InputError(
      f'images differ in their number of channels: {one} and {other}; use images with '
      'equally many'
    )
  raise InputError(
    f'images differ in size: {one} and {other}; set config.data.crop_size to the size '
    'that they shall have'
  )
