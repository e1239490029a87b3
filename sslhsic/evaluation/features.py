"""What a network makes of a whole source, computed on all devices."""

from collections.abc import Callable, Iterable

import chex
import jax
import numpy as np

from sslhsic import parallel


def extract(
  forward: Callable[[dict[str, chex.Array]], chex.ArrayTree],
  batches: Iterable[dict[str, np.ndarray]],
) -> tuple[chex.ArrayTree, np.ndarray]:
  """Applies a mapped function to a pass; every example counts once.

  Args:
    forward: a batch with leading axes [devices, b/devices] -> a tree of
      [devices, b/devices, ...].
    batches: of `loader.one_pass`.

  Returns:
    The outputs, [n, ...] each, and the labels, [n] or [n, C], of the whole source on
    every host, as host arrays.
  """
  outputs = []
  for batch in batches:
    sharded = parallel.shard(batch)
    output = parallel.gather(
      (forward(sharded), {name: sharded[name] for name in ('label', 'mask')})
    )
    mask = output[1].pop('mask')
    outputs.append(jax.tree.map(lambda x, mask=mask: x[mask], output))
  results, labels = jax.tree.map(lambda *x: np.concatenate(x), *outputs)
  return results, labels['label']
