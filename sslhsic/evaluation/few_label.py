"""Accuracy with a few labels per class: what a representation is worth to a labeller.

Protocol: features are standardised with the mean and standard deviation of all
training features, for which no label is needed; n examples of every class are drawn at
random; `probe.fit` on these, with one fixed λ, as there is nothing to choose it on;
top-1 on the whole test set; mean over several draws. The draws depend on the labels and
the seed alone: representations of the same images are compared on the same subsets.

On standardised features λ hardly matters between 1e-4 and 1e-1. The pixels of
scikit-learn's digits give about 0.90 at ten labels per class.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import parallel
from sslhsic.evaluation import features as features_lib
from sslhsic.evaluation import metrics, probe


def few_label_top1(
  train_features: chex.Array,
  train_labels: chex.Array,
  test_features: chex.Array,
  test_labels: chex.Array,
  *,
  num_classes: int,
  labels_per_class: Sequence[int] = (1, 5, 10),
  num_draws: int = 5,
  l2: float = 1e-2,
  seed: int = 0,
  train_rows: np.ndarray | None = None,
) -> dict[int, float]:
  """Mean top-1 test accuracy of logistic regressions on n labels per class.

  Args:
    train_features: [n, d] of this host.
    train_labels: [n], integers in [0, num_classes).
    test_features: [m, d] of this host.
    test_labels: [m].
    num_classes: C.
    labels_per_class: the numbers of labels to measure.
    num_draws: subsets to average over.
    l2: λ of `probe.fit`.
    seed: of the draws.
    train_rows: [n], the places of the training examples among all hosts' examples;
      by default 0 … n − 1, where there is one host.

  Returns:
    Accuracy in [0, 1] by number of labels per class, on the test examples of all hosts.

  Raises:
    ValueError: if a class has fewer training examples than labels are asked for.
  """
  mean, scale = probe.standardize(train_features)
  standardized = lambda x: (jnp.asarray(x, jnp.float32) - mean) / scale
  rows = np.arange(len(train_labels)) if train_rows is None else train_rows
  # Draws are of the examples of all hosts, in their order.
  labels = features_lib.whole(np.asarray(train_labels), rows)
  places = np.searchsorted(np.sort(parallel.of_hosts(rows)), rows)

  # All draws are fitted by one program: features [draws, C·n, d].
  fit = jax.vmap(lambda x, y: probe.fit(x, y, num_classes=num_classes, l2=l2))
  in_top_1 = jax.jit(jax.vmap(_is_right, in_axes=(0, None, None)))

  accuracies = {}
  for count in labels_per_class:
    subsets = draw_subsets(
      labels,
      num_classes=num_classes,
      labels_per_class=count,
      num_draws=num_draws,
      seed=seed,
    )
    # Of all features, only those that were drawn go anywhere.
    drawn = [standardized(_rows(train_features, places, x)) for x in subsets]
    fitted = fit(jnp.stack(drawn), jnp.asarray(labels[subsets]))
    hits = [
      np.asarray(in_top_1(fitted, standardized(x), jnp.asarray(y))).mean(axis=0)
      for x, y in zip(
        features_lib.chunks(np.asarray(test_features)),
        features_lib.chunks(np.asarray(test_labels)),
        strict=True,
      )
    ]
    accuracies[count] = features_lib.mean(np.concatenate(hits))
  return accuracies


def _is_right(
  fitted: probe.LinearProbe, features: chex.Array, labels: chex.Array
) -> chex.Array:
  """Whether a probe names the label of each test example, [m] bool."""
  return metrics.in_top_k(probe.predict(fitted, features), labels)


def _rows(features: chex.Array, places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """The features of some places, [w, d], from the hosts that have them.

  Args:
    features: [n, d] of this host.
    places: [n], theirs among the examples of all hosts, ascending.
    wanted: [w] places.
  """
  features = np.asarray(features)
  is_here = np.isin(wanted, places)
  found = np.zeros((len(wanted), features.shape[1]), np.float32)
  found[is_here] = features[np.searchsorted(places, wanted[is_here])]
  # Exactly one host has something to add.
  return parallel.sum_of_hosts(found)


def draw_subsets(
  labels: chex.Array,
  *,
  num_classes: int,
  labels_per_class: int,
  num_draws: int,
  seed: int,
) -> np.ndarray:
  """Draws random subsets with equally many examples of every class.

  The subset of fewer labels is part of that of more, draw by draw.

  Args:
    labels: [n], integers in [0, num_classes).
    num_classes: C.
    labels_per_class: examples of a class in a subset.
    num_draws: number of subsets, drawn independently.
    seed: of the draws.

  Returns:
    Indices into labels, [num_draws, C · labels_per_class], class by class.

  Raises:
    ValueError: if a class has fewer examples than labels_per_class.
  """
  labels = np.asarray(labels)
  members = [np.flatnonzero(labels == label) for label in range(num_classes)]
  rarest = min(range(num_classes), key=lambda label: len(members[label]))
  if len(members[rarest]) < labels_per_class:
    raise ValueError(
      f'class {rarest} has {len(members[rarest])} examples, but {labels_per_class} '
      'labels per class are asked for; ask for fewer'
    )
  # The seed of a draw does not depend on n: prefixes of one permutation are nested.
  rngs = [np.random.default_rng([seed, draw]) for draw in range(num_draws)]
  return np.stack(
    [
      np.concatenate([rng.permutation(group)[:labels_per_class] for group in members])
      for rng in rngs
    ]
  )
