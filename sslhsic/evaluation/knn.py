"""Weighted nearest-neighbour classification of frozen features.

The protocol of Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination" (arXiv:1805.01978), §3.4: the k training examples of greatest
cosine similarity s vote for their label, each with weight exp(s / τ).
"""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import parallel
from sslhsic.evaluation import metrics


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
  chunk: int = 256,
) -> chex.Array:
  """Share of the votes that each class gets from the neighbours of a test example.

  For the neighbours i of a row the score of class c is

    Σ_i exp(s_i / τ) [y_i = c] / Σ_i exp(s_i / τ),

  which ranks the classes as the published sum of weights does and cannot overflow at a
  small τ. Of training examples that are equally similar the earlier one is nearer.

  Args:
    train_features: [n, d], of any scale: they are normalised here.
    train_labels: [n], integers in [0, num_classes).
    test_features: [m, d].
    num_classes: C.
    k: neighbours that vote, at most n.
    temperature: τ, in units of cosine similarity.
    chunk: test examples at a time on a device; the similarities there are [chunk, n].

  Returns:
    Scores [m, C], float32; each row sums to one.

  Raises:
    ValueError: if there are fewer than k training examples, or a feature is not finite.
  """
  chex.assert_rank([train_features, train_labels, test_features], [2, 1, 2])
  chex.assert_equal_shape_prefix([train_features, train_labels], 1)
  chex.assert_equal_shape_suffix([train_features, test_features], 1)
  chex.assert_type(train_labels, int)
  _check_finite('train_features', train_features)
  _check_finite('test_features', test_features)
  if not 1 <= k <= train_features.shape[0]:
    raise ValueError(
      f'k is {k} for {train_features.shape[0]} training examples; '
      'use a k between 1 and their number'
    )
  # Queries are split over the devices, each of which holds the whole bank.
  queries = _pad(np.asarray(unit_norm(test_features)))
  vote = _mapped_vote(num_classes, k, temperature, chunk, tuple(parallel.devices()))
  votes = vote(unit_norm(train_features), jnp.asarray(train_labels), queries)
  return jax.device_get(votes).reshape(-1, num_classes)[: len(test_features)]


def top_k_accuracy(scores: chex.Array, labels: chex.Array, k: int = 1) -> float:
  """Fraction of test examples whose label is among the k classes with most votes.

  A class that no neighbour votes for is not named, even if fewer than k have votes.

  Args:
    scores: [m, C], of `scores`.
    labels: [m], integers in [0, C).
    k: how many classes may be named, at most C.
  """
  named = metrics.in_top_k(scores, labels, k)
  # `in_top_k` also ranks classes without a vote, by their index.
  votes = np.take_along_axis(np.asarray(scores), np.asarray(labels)[:, None], axis=1)
  return float(np.mean(np.asarray(named) & (votes[:, 0] > 0)))


def _check_finite(name: str, features: chex.Array) -> None:
  is_finite = np.all(np.isfinite(np.asarray(features, np.float32)), axis=1)
  if not is_finite.all():
    raise ValueError(
      f'{name} has {(~is_finite).sum()} of {len(is_finite)} rows that are not finite, '
      f'the first is row {is_finite.argmin()}'
    )


def _pad(queries: np.ndarray) -> chex.Array:
  """[m, d] as equal parts for this host's devices, filled up with zeros."""
  count = len(parallel.local_devices())
  rows = -len(queries) % count
  return parallel.shard(np.pad(queries, ((0, rows), (0, 0))))


@functools.cache
def _mapped_vote(
  num_classes: int,
  k: int,
  temperature: float,
  chunk: int,
  devices: tuple[jax.Device, ...],
) -> Callable:
  """`_vote` on all devices, of which each has its queries; compiled once."""
  del devices  # What is compiled is for these.
  vote = functools.partial(
    _vote, num_classes=num_classes, k=k, temperature=temperature, chunk=chunk
  )
  return parallel.pmap(vote, in_axes=(None, None, 0))


def _vote(bank, labels, queries, *, num_classes, k, temperature, chunk):
  """`scores` of unit-norm features: queries [m, d] against the bank [n, d]."""

  def vote(query):
    similarities = jnp.matmul(bank, query, precision='highest')
    nearest, neighbours = jax.lax.top_k(similarities, k)
    weights = jax.nn.softmax(nearest / temperature)
    # A product, not a scatter-add, whose order of summation a GPU may change.
    ballots = jax.nn.one_hot(labels[neighbours], num_classes, dtype=jnp.float32)
    return jnp.matmul(weights, ballots, precision='highest')

  return jax.lax.map(vote, queries, batch_size=chunk)
