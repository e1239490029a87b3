"""Accuracy with a few labels per class: what a representation is worth to a labeller.

Protocol: features are standardised with the mean and standard deviation of all
training features, for which no label is needed; n examples of every class are drawn at
random; `probe.fit` on these, with one fixed λ, as there is nothing to choose it on;
top-1 on the whole test set; mean over several draws. The draws depend on the labels and
the seed alone: representations of the same images are compared on the same subsets.

On standardised features λ hardly matters between 1e-4 and 1e-1. The pixels of
scikit-learn's digits give about 0.90 at ten labels per class.
"""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

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
) -> dict[int, float]:
  """Mean top-1 test accuracy of logistic regressions on n labels per class.

  Args:
    train_features: [n, d].
    train_labels: [n], integers in [0, num_classes).
    test_features: [m, d].
    test_labels: [m].
    num_classes: C.
    labels_per_class: the numbers of labels to measure.
    num_draws: subsets to average over.
    l2: λ of `probe.fit`.
    seed: of the draws.

  Returns:
    Accuracy in [0, 1] by number of labels per class.

  Raises:
    ValueError: if a class has fewer training examples than labels are asked for.
  """
  mean, scale = probe.standardize(train_features)
  train_features = (jnp.asarray(train_features, jnp.float32) - mean) / scale
  test_features = (jnp.asarray(test_features, jnp.float32) - mean) / scale
  test_labels = jnp.asarray(test_labels)
  accuracies = {}
  for count in labels_per_class:
    subsets = draw_subsets(
      train_labels,
      num_classes=num_classes,
      labels_per_class=count,
      num_draws=num_draws,
      seed=seed,
    )
    drawn = _top1(
      train_features[subsets],
      jnp.asarray(train_labels)[subsets],
      test_features,
      test_labels,
      num_classes=num_classes,
      l2=l2,
    )
    accuracies[count] = float(jnp.mean(drawn))
  return accuracies


@functools.partial(jax.jit, static_argnames=('num_classes', 'l2'))
def _top1(features, labels, test_features, test_labels, *, num_classes, l2):
  """Top-1 accuracy of the fits to all draws: features [draws, C·n, d] -> [draws]."""

  def of_draw(features, labels):
    fitted = probe.fit(features, labels, num_classes=num_classes, l2=l2)
    return metrics.top_k_accuracy(probe.predict(fitted, test_features), test_labels)

  return jax.vmap(of_draw)(features, labels)


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
