"""What a network makes of a whole source, computed on all devices."""

from collections.abc import Callable, Iterable, Iterator

import chex
import jax
import numpy as np

from sslhsic import parallel

Batch = dict[str, np.ndarray]


def extract(
  forward: Callable[[dict[str, chex.Array]], chex.ArrayTree],
  batches: Iterable[Batch],
) -> tuple[chex.ArrayTree, np.ndarray]:
  """Applies a mapped function to a pass; every example counts once.

  Args:
    forward: a batch with leading axes [devices, b/devices] -> a tree of
      [devices, b/devices, ...].
    batches: of `loader.one_pass`.

  Returns:
    The outputs, [n, ...] each, and the labels, [n] or [n, C], of the whole source on
    every host, as host arrays.

  Raises:
    ValueError: an output is not finite; names the row of the source.
  """
  # Labels and rows are gathered and masked like the outputs, and stay aligned.
  complete = lambda batch: (forward(batch), batch['label'], batch['row'])
  whole = jax.tree.map(lambda *x: np.concatenate(x), *outputs(complete, batches))
  output, labels, rows = whole
  _check_finite(output, rows)
  return output, labels


def _check_finite(output: chex.ArrayTree, rows: np.ndarray) -> None:
  for x in jax.tree.leaves(output):
    is_finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not is_finite.all():
      bad = rows[~is_finite]
      raise ValueError(
        f'{len(bad)} of {len(rows)} outputs of the network are not finite, the first '
        f'for row {bad[0]} of the data set; check the weights, or use '
        "config.training.precision = 'float32'"
      )


def outputs(
  forward: Callable[[dict[str, chex.Array]], chex.ArrayTree],
  batches: Iterable[Batch],
) -> Iterator[chex.ArrayTree]:
  """Applies a mapped function to a pass, batch by batch, without what is no example.

  Args:
    forward: as that of `extract`.
    batches: of `loader.every_example`.

  Yields:
    The outputs of a batch, [at most B, ...] each, on every host, as host arrays.
  """
  for batch in batches:
    sharded = parallel.shard(batch)
    output, mask = parallel.gather((forward(sharded), sharded['mask']))
    # The mask drops what fills up the last batch or replaces a corrupt image.
    yield jax.tree.map(lambda x, mask=mask: x[mask], output)
