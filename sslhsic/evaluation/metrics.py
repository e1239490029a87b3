"""Accuracies of an array of scores, as reported for classification and transfer tasks.

Accuracies take integer labels [n] and scores [n, C], of which only the order within a
row matters (logits, probabilities or votes), and can be jitted.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np


def top_k_accuracy(scores: chex.Array, labels: chex.Array, k: int = 1) -> chex.Array:
  """Fraction of examples whose label is among the k classes that score highest.

  Among equal scores the lower class index ranks first, so that constant scores, those
  of a collapsed representation, earn no more than always naming the same k classes.

  Args:
    scores: [n, C].
    labels: [n], integers in [0, C).
    k: how many classes may be named, at most C.

  Returns:
    A float32 scalar in [0, 1].

  Raises:
    ValueError: if k is not between 1 and C.
  """
  return jnp.mean(in_top_k(scores, labels, k), dtype=jnp.float32)


def in_top_k(scores: chex.Array, labels: chex.Array, k: int = 1) -> chex.Array:
  """Whether the label is among the k classes that score highest, [n] bool.

  Arguments, and what is raised, as of `top_k_accuracy`.
  """
  _check(scores, labels)
  num_classes = scores.shape[1]
  if not 1 <= k <= num_classes:
    raise ValueError(
      f'k is {k} for scores of {num_classes} classes; use 1 <= k <= {num_classes}'
    )
  named = jax.lax.top_k(scores, k)[1]
  return jnp.any(named == labels[:, None], axis=1)


def mean_per_class_accuracy(scores: chex.Array, labels: chex.Array) -> chex.Array:
  """Mean over the classes of the top-1 accuracy on the examples of each class.

  The metric of Aircraft, Pets, Caltech-101 and Flowers, whose test sets are unbalanced
  (Kornblith et al. 2019, arXiv:1805.08974). A class without an example is left out.

  Args:
    scores: [n, C].
    labels: [n], integers in [0, C).

  Returns:
    A float32 scalar in [0, 1].
  """
  _check(scores, labels)
  num_classes = scores.shape[1]
  correct = (jnp.argmax(scores, axis=1) == labels).astype(jnp.float32)
  hits = jax.ops.segment_sum(correct, labels, num_classes)
  counts = jax.ops.segment_sum(jnp.ones_like(correct), labels, num_classes)
  # 0/0 for a class without an example, which `where` leaves out.
  return jnp.mean(hits / counts, where=counts > 0)


def mean_average_precision(scores: chex.Array, labels: chex.Array) -> float:
  """Mean over the classes of the 11-point interpolated average precision.

  The metric of PASCAL VOC 2007 (Everingham et al. 2010, section 4.2): with the examples
  ordered by their score for a class, the mean over the recalls 0, 0.1, …, 1 of the
  greatest precision at that recall or a higher one. Equal scores enter together:
  constant scores earn the share of the positives. A class without one is left out.

  Args:
    scores: [n, C], of which only the order within a column matters.
    labels: [n, C]: 1 (is of the class), 0 (is not), -1 (is left out for this class).

  Returns:
    A number in [0, 1].

  Raises:
    ValueError: if no class has a positive.
  """
  scores, labels = np.asarray(scores), np.asarray(labels)
  chex.assert_rank([scores, labels], 2)
  chex.assert_equal_shape([scores, labels])
  precisions = [
    eleven_point_precision(scores[judged, c], labels[judged, c] == 1, num_positives)
    for c, judged in enumerate((labels >= 0).T)
    if (num_positives := int(np.count_nonzero(labels[:, c] == 1)))
  ]
  if not precisions:
    raise ValueError(f'none of {len(labels)} examples is of any class; check labels')
  return float(np.mean(precisions))


def eleven_point_precision(
  scores: np.ndarray, is_positive: np.ndarray, num_positives: int
) -> float:
  """Average precision of one class, see `mean_average_precision`.

  Args:
    scores: [n].
    is_positive: [n] bool.
    num_positives: how many there are; more than in `is_positive` if some were not
      found, so that the recall does not come to 1.
  """
  order = np.argsort(-scores, kind='stable')
  hits = np.cumsum(is_positive[order])
  # Only where the score falls next is there a threshold.
  last_of_equals = np.append(np.diff(scores[order]) != 0, True)[: len(hits)]
  precision = (hits / np.arange(1, len(hits) + 1))[last_of_equals]
  # Recall in tenths, as a comparison of integers.
  tenths = 10 * hits[last_of_equals]
  at_recall = [
    precision[tenths >= tenth * num_positives].max(initial=0.0) for tenth in range(11)
  ]
  return float(np.mean(at_recall))


METRICS: dict[str, Callable[[chex.Array, chex.Array], chex.Numeric]] = {
  'top1': top_k_accuracy,
  'mean_per_class': mean_per_class_accuracy,
  'mean_average_precision': mean_average_precision,
}


def create(name: str) -> Callable[[chex.Array, chex.Array], chex.Numeric]:
  """The metric of scores and labels by its name in `METRICS`.

  Raises:
    ValueError: there is no such metric.
  """
  if name not in METRICS:
    raise ValueError(f'unknown metric {name!r}; use one of {", ".join(METRICS)}')
  return METRICS[name]


def _check(scores: chex.Array, labels: chex.Array) -> None:
  """Refuses scores that are not [n, C] and labels that are not [n] integers."""
  chex.assert_rank([scores, labels], [2, 1])
  chex.assert_equal_shape_prefix([scores, labels], 1)
  chex.assert_type(labels, int)
