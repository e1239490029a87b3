"""Features of a whole source, computed on all devices."""

from collections.abc import Callable, Iterable

import chex
import jax
import numpy as np

from sslhsic import parallel


def extract(
  forward: Callable[[chex.Array], chex.ArrayTree],
  batches: Iterable[dict[str, np.ndarray]],
) -> tuple[chex.ArrayTree, np.ndarray]:
  """Applies a mapped function to every image of a pass.

  Args:
    forward: images [devices, b/devices, H, W, C] uint8 -> a tree of
      [devices, b/devices, ...].
    batches: of `loader.one_pass`.

  Returns:
    The outputs, [n, ...] each, and the labels [n], as host arrays.
  """
  outputs, labels = [], []
  for batch in batches:
    mask = batch['mask']
    output = jax.device_get(forward(parallel.shard(batch['image'])))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output)
    outputs.append(jax.tree.map(lambda x, mask=mask: x[mask], flat))
    labels.append(batch['label'][mask])
  return jax.tree.map(lambda *x: np.concatenate(x), *outputs), np.concatenate(labels)
