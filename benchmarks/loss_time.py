"""Time of the losses alone, forward and backward, by method and batch size.

`python -m benchmarks.loss_time --batch_sizes=512,2048` on one device, with features
[4, B, 256]: two online views, with gradient, and two target views. A round is a number
of calls without waiting in between; its time, until the device is done, is divided by
their number.

On a GPU, matrix products are cuBLAS's: choosing among Triton's kernels for each shape
takes longer than the measurement.

Prints a line of JSON for each method and batch size: median, least and greatest
milliseconds of the rounds, bytes of temporary memory; or 'error'. The methods of a
batch size are compiled several at once, then measured.
"""

import concurrent.futures
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import chex
import jax
from absl import app, flags

from benchmarks import loss, methods

_BATCH_SIZES = flags.DEFINE_list('batch_sizes', ['512', '2048', '8192', '32768'], 'B.')
_DIM = flags.DEFINE_integer('dim', 256, 'Of the features.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Of each.')
_SECONDS = flags.DEFINE_float('round_seconds', 0.05, 'At least one call.')
_THREADS = flags.DEFINE_integer('threads', 4, 'That compile at the same time.')

METHODS = (
  loss.BASELINE,
  'ssl_hsic, pairs',
  'ssl_hsic, covariance',
  'ssl_hsic, exact',
  'ssl_hsic, 512 stratified',
  'info_nce',
  'byol',
)


def measure(
  batch_sizes: Sequence[int],
  *,
  dim: int,
  rounds: int,
  seconds: float,
  threads: int = 4,
) -> Iterator[dict]:
  """Measures every method at every batch size, the smallest first.

  Yields:
    'method', 'batch_size' and 'milliseconds', 'from', 'to', 'temporary_bytes', or
    'error'.
  """
  for size in sorted(batch_sizes):
    # A size is measured before the next one is compiled: a run that ends early has it.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      compiled = {
        method: pool.submit(_compile, size, method, dim) for method in METHODS
      }
    views = loss.unit_features(size, dim)
    for method in METHODS:
      row = {'method': method, 'batch_size': size}
      try:
        function = compiled[method].result()
        yield row | _time(function, views, rounds, seconds)
      except Exception as error:
        yield row | {'error': ' '.join(str(error).split())[:120]}


def _compile(size: int, method: str, dim: int) -> jax.stages.Compiled:
  views = jax.ShapeDtypeStruct((2, size, dim), 'float32')
  function = jax.jit(loss.value_and_gradient(methods.function(method)))
  return function.lower(views, views, jax.random.key(0)).compile()


def _time(
  function: Callable, views: chex.Array, rounds: int, seconds: float
) -> dict[str, float]:
  arguments = views[:2], views[2:], jax.random.key(0)
  call = lambda count: jax.block_until_ready(
    [function(*arguments) for _ in range(count)]
  )
  call(1)
  start = time.perf_counter()
  call(1)
  # What the calls return stays until all are done: not too many.
  count = min(max(1, math.ceil(seconds / (time.perf_counter() - start))), 100)
  milliseconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    call(count)
    milliseconds.append(1e3 * (time.perf_counter() - start) / count)
  return {
    'milliseconds': statistics.median(milliseconds),
    'from': min(milliseconds),
    'to': max(milliseconds),
    'temporary_bytes': function.memory_analysis().temp_size_in_bytes,
  }


def main(argv: list[str]) -> None:
  """Measures what the flags say."""
  del argv
  rows = measure(
    [int(size) for size in _BATCH_SIZES.value],
    dim=_DIM.value,
    rounds=_ROUNDS.value,
    seconds=_SECONDS.value,
    threads=_THREADS.value,
  )
  for row in rows:
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  app.run(main)
