"""Speed of the loader: two random 224-pixel views of JPEGs, for 1, 2, … workers.

Run `python -m benchmarks.loader`. JPEGs of 500×375 pixels are made up. The bare
loop reads, decodes and crops them and keeps nothing: what a worker would do if moving
data around cost nothing. It runs in as many processes at once as there are workers, as
cores slow each other down. The same work in tf.data, with
`tf.image.decode_and_crop_jpeg`, is measured too if tensorflow is importable.

All are measured in turns, several times, each between two bare loops: on a machine that
does other work besides, ratios of neighbours mean more than speeds.

Then one worker whose reads take 50 ms longer, and the parts of a batch of 4096 small
images for eight devices; see `loader_parts`. `--only=NAME` measures one of the three.

Prints a table and, as the last line, the same as JSON.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

import cv2
import jax
import numpy as np
from absl import app, flags

from benchmarks import loader_parts
from sslhsic.data import images, loader, sources
from sslhsic.tables import printed

_ONLY = flags.DEFINE_enum(
  'only', None, ['workers', 'late', 'parts'], 'What to measure; by default everything.'
)

SIZE = 224
BATCH_SIZE = 128
NUM_FILES = 256
NUM_EXAMPLES = 100_000
ROUNDS = 5
SECONDS = 8.0
LATE_S = 0.05
NUM_DEVICES = 8  # Fake ones on a CPU.
# A batch of the published size, of small images: large ones take gigabytes.
PARTS = {'batch_size': 4096, 'size': 64, 'num_workers': 2, 'rounds': 5}


def write_jpegs(
  folder: pathlib.Path, count: int, shape: tuple[int, int] = (375, 500)
) -> None:
  """Images of a height and width with edges and texture."""
  rng = np.random.default_rng(0)
  for number in range(count):
    noise = rng.normal(size=(*shape, 3)).astype(np.float32)
    blurred = [cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 4, 16)]
    image = 128 + 25 * (sum(blurred) + noise)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    cv2.imwrite(
      str(folder / f'{number}.jpg'), np.clip(image, 0, 255).astype(np.uint8), quality
    )


def bare_loop(source: sources.Source) -> Iterator[int]:
  """Decodes and crops in this process; gives how many images were done."""
  rng = np.random.default_rng(0)
  while True:
    for row in rng.permutation(len(source)):
      image = images.decode(source[row]['image'])
      for _ in range(2):
        images.random_resized_crop(rng, image, SIZE)
      yield 1


def loader_batches(source: sources.Source, num_workers: int) -> Iterator[int]:
  """The loader's batches; gives how many images were in each."""
  stream = loader.views(
    source,
    batch_size=BATCH_SIZE,
    seed=0,
    crops=(loader.random_crop(SIZE),) * 2,
    num_workers=num_workers,
  )
  try:
    for batch in stream:
      yield len(batch['index'])
  finally:
    stream.close()


def tf_data_batches(source: sources.Source, num_threads: int) -> Iterator[int]:
  """The same work in tf.data; gives how many images were in each batch."""
  import tensorflow as tf  # It is no dependency of the project.

  def view(encoded):
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.float32)
    area = tf.random.uniform([], 0.08, 1) * shape[0] * shape[1]
    aspect = tf.exp(tf.random.uniform([], np.log(3 / 4), np.log(4 / 3)))
    crop = tf.round(tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)]))
    crop = tf.minimum(crop, shape)
    start = tf.floor(tf.random.uniform([2]) * (shape - crop + 1))
    window = tf.cast(tf.concat([start, crop], axis=0), tf.int32)
    pixels = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    resized = tf.image.resize(pixels, (SIZE, SIZE), tf.image.ResizeMethod.BICUBIC)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

  def views(path):
    encoded = tf.io.read_file(path)
    return view(encoded), view(encoded)

  paths = [source.name(row) for row in range(len(source))]
  batches = tf.data.Dataset.from_tensor_slices(paths).repeat()
  batches = batches.shuffle(len(paths)).map(views, num_parallel_calls=num_threads)
  batches = batches.batch(BATCH_SIZE, drop_remainder=True).prefetch(2)
  options = tf.data.Options()
  options.threading.private_threadpool_size = num_threads
  options.threading.max_intra_op_parallelism = 1
  for first, _ in batches.with_options(options):
    yield len(first)


def speed(batches: Iterator[int], warm_up: int, seconds: float) -> float:
  """Images per second.

  Args:
    batches: gives numbers of images; is closed.
    warm_up: images to leave out, made while workers start and buffers fill.
    seconds: how long to measure.
  """
  while warm_up > 0:
    warm_up -= next(batches)
  count, start = 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    count += next(batches)
  elapsed = time.perf_counter() - start
  batches.close()
  return count / elapsed


def bare_speed(folder: str, processes: int, seconds: float) -> float:
  """Images per second of bare loops in several processes at once, all together."""
  context = multiprocessing.get_context('spawn')
  start, speeds = context.Barrier(processes), context.Queue()
  loops = [
    context.Process(target=_run_bare_loop, args=(folder, start, speeds, seconds))
    for _ in range(processes)
  ]
  for loop in loops:
    loop.start()
  total = sum(speeds.get() for _ in loops)
  for loop in loops:
    loop.join()
  return total


def _run_bare_loop(folder, start, speeds, seconds):
  images_done = bare_loop(data_set(folder))
  next(images_done)
  start.wait()
  speeds.put(speed(images_done, warm_up=16, seconds=seconds))


def data_set(folder: str) -> sources.Source:
  """The images of a folder, repeated to a data set of usual size."""
  source = sources.create(f'folder:{folder}', 'train')
  return sources.SubsetSource(source, np.arange(NUM_EXAMPLES) % len(source))


def measure(
  num_workers: tuple[int, ...], *, rounds: int, seconds: float, num_files: int
) -> dict:
  """Measures everything in turns; medians over the rounds."""
  with tempfile.TemporaryDirectory() as folder:
    write_jpegs(pathlib.Path(folder), num_files)
    source = data_set(folder)
    subjects = {('loader', n): loader_batches for n in num_workers}
    if importlib.util.find_spec('tensorflow'):
      subjects |= {('tf.data', n): tf_data_batches for n in num_workers}
    timings = {subject: [] for subject in subjects}
    for _ in range(rounds):
      for (name, workers), make in subjects.items():
        before = bare_speed(folder, workers, seconds / 2)
        warm_up = 8 * BATCH_SIZE * workers
        timed = speed(make(source, workers), warm_up, seconds)
        after = bare_speed(folder, workers, seconds / 2)
        timings[name, workers].append((timed, (before + after) / 2))
    file_kb = statistics.mean(
      path.stat().st_size for path in pathlib.Path(folder).iterdir()
    )
  return {
    'benchmark': 'loader',
    'work': f'two views of {SIZE} px from JPEGs of 500x375, {file_kb / 1e3:.0f} kB',
    'rows': [_row(*subject, pairs) for subject, pairs in timings.items()],
    'rounds': rounds,
    'cores': os.cpu_count(),
    'versions': {'opencv': cv2.__version__, 'numpy': np.__version__},
  }


def _row(name: str, workers: int, pairs: list[tuple[float, float]]) -> dict:
  median = statistics.median
  return {
    'name': name,
    'workers': workers,
    'images_per_second': median(timed for timed, _ in pairs),
    'bare_images_per_second': median(bare for _, bare in pairs),
    'lost': median(1 - timed / bare for timed, bare in pairs),
    'lost_from_to': [
      pick(1 - timed / bare for timed, bare in pairs) for pick in (min, max)
    ],
  }


def table(measured: dict) -> str:
  """The measurements as lines of text."""
  rows = [('name', 'workers', 'images/s', 'bare/s', 'lost', 'from', 'to')]
  for row in measured['rows']:
    cells = (
      row['name'],
      row['workers'],
      f'{row["images_per_second"]:.0f}',
      f'{row["bare_images_per_second"]:.0f}',
      *(f'{lost:.1%}' for lost in (row['lost'], *row['lost_from_to'])),
    )
    rows.append(cells)
  return f'{measured["work"]}\n{printed.columns(rows, 10)}'


def measure_late() -> list[dict]:
  """One worker whose reads answer late, with one read in flight and with 16."""
  with _small_images() as source:
    return loader_parts.late_reads(
      source,
      (1, loader.READS_IN_FLIGHT),
      size=PARTS['size'],
      late_s=LATE_S,
      seconds=SECONDS,
    )


def measure_parts() -> dict:
  """The parts of a large batch."""
  with _small_images() as source:
    return loader_parts.parts(source, **PARTS)


@contextlib.contextmanager
def _small_images() -> Iterator[sources.Source]:
  with tempfile.TemporaryDirectory() as folder:
    write_jpegs(pathlib.Path(folder), NUM_FILES, (96, 128))
    yield data_set(folder)


def main(argv: list[str]) -> None:
  """Measures with 1, 2, 4, … workers up to one on each core, late reads, and parts."""
  del argv
  # Only of a CPU, and before JAX looks for devices.
  jax.config.update('jax_num_cpu_devices', NUM_DEVICES)
  result = {}
  if _ONLY.value in (None, 'workers'):
    cores = os.cpu_count()
    num_workers = tuple(2**i for i in range(cores.bit_length()) if 2**i <= cores)
    result |= measure(num_workers, rounds=ROUNDS, seconds=SECONDS, num_files=NUM_FILES)
    print(table(result))
  if _ONLY.value in (None, 'late'):
    result['late'] = measure_late()
    print(loader_parts.late_table(result['late']))
  if _ONLY.value in (None, 'parts'):
    result['parts'] = measure_parts()
    print(loader_parts.parts_table(result['parts']))
  print(json.dumps(result))


if __name__ == '__main__':
  app.run(main)
