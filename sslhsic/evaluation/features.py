"""What a network makes of a whole source, computed on all devices.

A host embeds its part of every batch. What is computed from features need not have all
of them in one place: `share` gives every host its own part, `whole` all of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import chex
import jax
import numpy as np
from absl import logging

from sslhsic import parallel

Batch = dict[str, np.ndarray]


class Share(NamedTuple):
  """This host's part of what a network makes of a source, as host arrays.

  Attributes:
    features: [n, ...], or a tree of such arrays.
    labels: [n] or [n, C].
    rows: [n], of the source, ascending. The hosts together have every row once.
  """

  features: chex.ArrayTree
  labels: np.ndarray
  rows: np.ndarray


def share(
  forward: Callable[[dict[str, chex.Array]], chex.ArrayTree], batches: Iterable[Batch]
) -> Share:
  """Applies a mapped function to a pass; every example counts once, on one host.

  Arguments and errors as `extract`.
  """
  found = _collect(forward, batches, parallel.local)
  # All hosts come to the same result: one alone would leave the others waiting.
  _check_finite(found, parallel.of_hosts)
  return found


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
  found = _collect(forward, batches, parallel.gather)
  _check_finite(found, lambda rows: rows)
  return found.features, found.labels


def _collect(
  forward: Callable[[Batch], chex.ArrayTree],
  batches: Iterable[Batch],
  fetch: Callable[[chex.ArrayTree], chex.ArrayTree],
) -> Share:
  # Labels and rows are masked like the outputs, and stay aligned.
  complete = lambda batch: Share(forward(batch), batch['label'], batch['row'])
  return _concatenated(outputs(complete, batches, fetch))


def _concatenated(trees: Iterable[Share]) -> Share:
  """All in one. Arrays grow in place: a list of parts would hold everything twice."""
  grown, count = None, 0
  for tree in trees:
    parts, structure = jax.tree.flatten(tree)
    grown = grown or [np.array(part) for part in parts]
    size = count + len(parts[0])
    for whole, part in zip(grown, parts, strict=True):
      if size > len(whole):
        # Linux moves pages, and copies nothing, of arrays that are worth it.
        whole.resize((max(size, len(whole) * 9 // 8), *part.shape[1:]), refcheck=False)
      whole[count:size] = part
    count = size
  for whole in grown:
    whole.resize((count, *whole.shape[1:]), refcheck=False)
  return jax.tree.unflatten(structure, grown)


def _check_finite(found: Share, of_all: Callable[[np.ndarray], np.ndarray]) -> None:
  """Checks the outputs of all hosts; `of_all` gathers rows."""
  for x in jax.tree.leaves(found.features):
    bad = of_all(found.rows[~is_finite(x)])
    if len(bad):
      raise ValueError(
        f'{len(bad)} of {len(of_all(found.rows))} outputs of the network are not '
        f'finite, the first for row {bad.min()} of the data set; check the weights, or '
        "use config.training.precision = 'float32'"
      )


def is_finite(x: np.ndarray) -> np.ndarray:
  """Whether all numbers of an example are finite, [n, ...] -> [n] bool."""
  # Part by part: of all at once, this would be as large again.
  axes = tuple(range(1, x.ndim))
  return np.concatenate([np.isfinite(part).all(axis=axes) for part in chunks(x)])


def chunks(x: np.ndarray, size: int = 8192) -> Iterator[np.ndarray]:
  """An array [n, ...] in parts of so many rows; one empty part if there is none."""
  for start in range(0, max(len(x), 1), size):
    yield x[start : start + size]


def whole(tree: chex.ArrayTree, rows: np.ndarray) -> chex.ArrayTree:
  """The arrays of all hosts on every host, in the order of the source.

  Args:
    tree: of arrays [n, ...] of this host.
    rows: [n], see `Share`.
  """
  if jax.process_count() == 1:
    return tree
  order = np.argsort(parallel.of_hosts(rows))
  return jax.tree.map(lambda x: parallel.of_hosts(x)[order], tree)


def labelled(tree: chex.ArrayTree, labels: np.ndarray) -> chex.ArrayTree:
  """The arrays of the examples that have a label, [n, ...] -> [m, ...].

  Sources whose labels are slow to read give the others, too: see `compared.labelled`.

  Args:
    tree: of arrays, also [n, ...] of labels.
    labels: [n]; or [n, C], which all examples have.
  """
  is_labelled = labels >= 0
  # Mostly all are, and features are too large to be copied for nothing.
  if labels.ndim != 1 or is_labelled.all():
    return tree
  logging.log_first_n(
    logging.WARNING,
    '%d of %d images have no label and are left out',
    1,
    np.sum(~is_labelled),
    len(labels),
  )
  return jax.tree.map(lambda x: x[is_labelled], tree)


def of_whole(features: np.ndarray, labels: np.ndarray) -> Share:
  """This host's share of arrays that every host has."""
  rows = np.arange(jax.process_index(), len(labels), jax.process_count())
  if jax.process_count() > 1:
    features, labels = features[rows], labels[rows]
  return Share(features, labels, rows)


def mean(values: np.ndarray) -> float:
  """Mean of numbers [n] over the examples of all hosts; 0 if there is none."""
  values = np.asarray(values, np.float64)
  total, count = parallel.sum_of_hosts(np.array([values.sum(), len(values)]))
  return float(total / max(count, 1))


def outputs(
  forward: Callable[[dict[str, chex.Array]], chex.ArrayTree],
  batches: Iterable[Batch],
  fetch: Callable[[chex.ArrayTree], chex.ArrayTree] = parallel.gather,
) -> Iterator[chex.ArrayTree]:
  """Applies a mapped function to a pass, batch by batch, without what is no example.

  Args:
    forward: as that of `extract`.
    batches: of `loader.every_example`.
    fetch: what brings results to the host, `parallel.gather` or `parallel.local`.

  Yields:
    The outputs of a batch, [at most B, ...] each, as host arrays: with `gather` of the
    global batch on every host, with `local` of the host's own examples.
  """
  computing = None
  # Nothing else may be on the devices while hosts exchange arrays.
  overlaps = jax.process_count() == 1 or fetch is parallel.local
  for batch in batches:
    sharded = parallel.shard(batch)
    launched = forward(sharded), sharded['mask']
    # The devices compute while the results of the batch before are fetched.
    if computing is not None:
      yield _examples(fetch(computing))
    computing = launched if overlaps else None
    if not overlaps:
      yield _examples(fetch(launched))
  if computing is not None:
    yield _examples(fetch(computing))


def _examples(fetched: tuple[chex.ArrayTree, np.ndarray]) -> chex.ArrayTree:
  """Without what fills up the last batch or replaces a corrupt image."""
  output, mask = fetched
  return jax.tree.map(lambda x: x[mask], output)
