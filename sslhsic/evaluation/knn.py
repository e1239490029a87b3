"""Weighted nearest-neighbour classification of frozen features.

The protocol of Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination" (arXiv:1805.01978), §3.4: the k training examples of greatest
cosine similarity s vote for their label, each with weight exp(s / τ).

Features stay in the memory of the host that embedded them. Every device looks for the
neighbours of all test examples in blocks of its host's training examples; what devices
and hosts exchange is the test examples, and the k best candidates of each.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import parallel
from sslhsic.evaluation import features as features_lib
from sslhsic.evaluation import metrics

# Test examples at a time, over all devices, and training examples, on a device. At 2048
# dimensions both take 64 MiB, and their similarities 256 MiB.
_NUM_QUERIES = 8192
_BLOCK = 8192
_LAST = np.iinfo(np.int32).max  # Behind all rows.


class Neighbours(NamedTuple):
  """The nearest training examples of each test example, the nearest first.

  Attributes:
    similarities: [m, k], cosine.
    labels: [m, k].
  """

  similarities: np.ndarray
  labels: np.ndarray


def unit_norm(features: chex.Array) -> chex.Array:
  """Scales features [n, d] to Euclidean norm one; a zero row stays zero. float32."""
  chex.assert_rank(features, 2)
  features = jnp.asarray(features, jnp.float32)
  squared = jnp.sum(jnp.square(features), axis=1, keepdims=True)
  return features * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def scores(
  train_features: chex.Array,
  train_labels: chex.Array,
  test_features: chex.Array,
  *,
  num_classes: int,
  k: int = 20,
  temperature: float = 0.07,
  train_rows: np.ndarray | None = None,
) -> np.ndarray:
  """Share of the votes that each class gets; `votes` of `neighbours`.

  Args and errors are theirs; the labels are in [0, num_classes).

  Returns:
    Scores [m, C] of this host's test examples, float32; each row sums to one.
  """
  found = neighbours(
    train_features, train_labels, test_features, k=k, train_rows=train_rows
  )
  return votes(found, num_classes=num_classes, k=k, temperature=temperature)


def votes(
  found: Neighbours, *, num_classes: int, k: int, temperature: float
) -> np.ndarray:
  """Share of the votes that each class gets from the neighbours of a test example.

  For the neighbours i of a row the score of class c is

    Σ_i exp(s_i / τ) [y_i = c] / Σ_i exp(s_i / τ),

  which ranks the classes as the published sum of weights does and cannot overflow at a
  small τ.

  Args:
    found: at least k neighbours of m test examples.
    num_classes: C.
    k: neighbours that vote.
    temperature: τ, in units of cosine similarity.

  Returns:
    Scores [m, C], float32; each row sums to one.
  """
  nearest = Neighbours(*(x[:, :k] for x in found))
  return jax.device_get(_votes(nearest, num_classes, temperature))


def neighbours(
  train_features: chex.Array,
  train_labels: chex.Array,
  test_features: chex.Array,
  *,
  k: int,
  train_rows: np.ndarray | None = None,
) -> Neighbours:
  """The k training examples of greatest cosine similarity, of all hosts.

  Of training examples that are equally similar the earlier one is nearer.

  Args:
    train_features: [n, d] of this host, of any scale: they are normalised here.
    train_labels: [n], integers.
    test_features: [m, d] of this host.
    k: neighbours, at most as many as there are training examples.
    train_rows: [n], the places of the training examples among all hosts' examples,
      ascending; by default 0 … n − 1, where there is one host.

  Raises:
    ValueError: if there are fewer than k training examples, or a feature is not finite.
  """
  train_features, test_features = np.asarray(train_features), np.asarray(test_features)
  train_labels = np.asarray(train_labels)
  chex.assert_rank([train_features, train_labels, test_features], [2, 1, 2])
  chex.assert_equal_shape_prefix([train_features, train_labels], 1)
  chex.assert_equal_shape_suffix([train_features, test_features], 1)
  chex.assert_type(train_labels, int)
  _check_finite('train_features', train_features)
  _check_finite('test_features', test_features)
  train_sizes, test_sizes = (
    parallel.of_hosts(np.array([len(x)])) for x in (train_features, test_features)
  )
  if not 1 <= k <= train_sizes.sum():
    raise ValueError(
      f'k is {k} for {train_sizes.sum()} training examples; '
      'use a k between 1 and their number'
    )
  rows = np.arange(len(train_labels)) if train_rows is None else train_rows
  bank = Bank(train_features, train_labels.astype(np.int32), np.asarray(rows, np.int32))
  return _search(bank, test_features, k, train_sizes.max(), test_sizes.max())


class Bank(NamedTuple):
  """Training examples: features [n, d], labels [n], rows [n]; the row −1 is none."""

  features: chex.Array
  labels: chex.Array
  rows: chex.Array


class _Candidates(NamedTuple):
  """Training examples that may be the nearest: [Q, j] each."""

  similarities: chex.Array
  labels: chex.Array
  rows: chex.Array


def _search(
  bank: Bank, queries: np.ndarray, k: int, largest_bank: int, most_queries: int
) -> Neighbours:
  """`neighbours`, in as many rounds as the host with the most examples needs."""
  count = len(parallel.local_devices())
  of_device = lambda size: max(-(-int(size) // count), 1)
  at_most = max(_NUM_QUERIES // len(parallel.devices()), 1)
  num_queries = min(at_most, of_device(most_queries))
  block = min(_BLOCK, of_device(largest_bank))
  spread, start, update, merge = _programs(k, tuple(parallel.devices()))
  found = []
  for part in _parts(queries, num_queries * count, most_queries):
    everywhere = spread(parallel.shard(_filled(num_queries * count, 0, part)))
    best, before = start(everywhere), None
    blocks = zip(*(_parts(x, block * count, largest_bank) for x in bank), strict=True)
    for features, labels, rows in blocks:
      fill = functools.partial(_filled, block * count)
      made = Bank(fill(0, features), fill(0, labels), fill(-1, rows))
      best, before = update(everywhere, parallel.shard(made), best), best
      # One block ahead of the devices, which would else be sent all of them.
      jax.block_until_ready(before)
    nearest = parallel.local(merge(best))
    found.append(Neighbours(*(x[: len(part)] for x in nearest)))
  return Neighbours(*(np.concatenate(x) for x in zip(*found, strict=True)))


def _parts(x: np.ndarray, size: int, total: int) -> Iterator[np.ndarray]:
  """Parts of an array, as many as one of `total` rows has; the last may be empty."""
  for start in range(0, max(int(total), 1), size):
    yield x[start : start + size]


def _filled(size: int, value: int, x: np.ndarray) -> np.ndarray:
  """An array with as many rows as `size`."""
  missing = size - len(x)
  # Whole parts are views, and are not copied.
  if not missing:
    return x
  return np.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1)), constant_values=value)


@functools.cache
def _programs(k: int, devices: tuple[jax.Device, ...]) -> tuple[Callable, ...]:
  """The parts of the search on all devices, each compiled once for equal shapes."""
  del devices  # What is compiled is for these.

  def spread(queries):
    """Test examples of all devices, [q, d] -> [Q, d], on each of them."""
    return jax.lax.all_gather(unit_norm(queries), parallel.AXIS_NAME, tiled=True)

  def start(queries):
    shape = len(queries), k
    nothing = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    return _Candidates(*nothing, jnp.full(shape, _LAST))

  def update(queries, bank, best):
    similarities = jnp.matmul(queries, unit_norm(bank.features).T, precision='highest')
    similarities = jnp.where(bank.rows[None] >= 0, similarities, -jnp.inf)
    # Of equal ones, the first: rows ascend.
    nearest, places = jax.lax.top_k(similarities, min(k, len(bank.rows)))
    found = _Candidates(nearest, bank.labels[places], bank.rows[places])
    return _best(best, found, k)

  def merge(best):
    gathered = jax.tree.map(
      lambda x: jax.lax.all_gather(x, parallel.AXIS_NAME, axis=1, tiled=True), best
    )
    nearest = _best(gathered, None, k)
    # Each device has all test examples, and keeps its own.
    size = len(nearest.rows) // jax.lax.axis_size(parallel.AXIS_NAME)
    start = size * jax.lax.axis_index(parallel.AXIS_NAME)
    own = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size)
    return Neighbours(own(nearest.similarities), own(nearest.labels))

  return tuple(parallel.pmap(f) for f in (spread, start, update, merge))


def _best(one: _Candidates, other: _Candidates | None, k: int) -> _Candidates:
  """The k nearest of candidates; of equal ones, the first rows."""
  if other is not None:
    one = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), one, other)
  # By similarity, then by row: in which order blocks were searched does not matter.
  keys = -one.similarities, one.rows, one.labels
  similarities, rows, labels = jax.lax.sort(keys, num_keys=2)
  return _Candidates(-similarities[:, :k], labels[:, :k], rows[:, :k])


@functools.partial(jax.jit, static_argnums=1)
def _votes(nearest: Neighbours, num_classes: int, temperature: float) -> chex.Array:
  def vote(neighbours):
    weights = jax.nn.softmax(neighbours.similarities / temperature)
    # A product, not a scatter-add, whose order of summation a GPU may change.
    ballots = jax.nn.one_hot(neighbours.labels, num_classes, dtype=jnp.float32)
    return jnp.matmul(weights, ballots, precision='highest')

  return jax.lax.map(vote, nearest, batch_size=256)


def top_k_accuracy(scores: chex.Array, labels: chex.Array, k: int = 1) -> float:
  """Fraction of the test examples of all hosts whose label is among the k best classes.

  A class that no neighbour votes for is not named, even if fewer than k have votes.

  Args:
    scores: [m, C], of `scores`.
    labels: [m], integers in [0, C).
    k: how many classes may be named, at most C.
  """
  named = metrics.in_top_k(scores, labels, k)
  # `in_top_k` also ranks classes without a vote, by their index.
  of_label = np.take_along_axis(np.asarray(scores), np.asarray(labels)[:, None], axis=1)
  return features_lib.mean(np.asarray(named) & (of_label[:, 0] > 0))


def _check_finite(name: str, features: np.ndarray) -> None:
  bad = np.flatnonzero(~features_lib.is_finite(features))
  # All hosts come to the same result: one alone would leave the others waiting.
  counts = parallel.sum_of_hosts(np.array([len(bad), len(features)]))
  if counts[0]:
    first = f', the first is row {bad[0]}' if len(bad) else ' of other hosts'
    raise ValueError(
      f'{name} has {counts[0]} of {counts[1]} rows that are not finite{first}'
    )
