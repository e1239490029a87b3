"""What frozen features are worth: kNN, linear probe and few labels, side by side."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from sslhsic.evaluation import features, few_label, knn, metrics, probe
from sslhsic.tables import printed


class Split(NamedTuple):
  """Features [n, d] and labels [n], the same on every host."""

  features: np.ndarray
  labels: np.ndarray


class Protocol(NamedTuple):
  """Settings of the measurements.

  Attributes:
    k, temperature: of the weighted kNN.
    labels_per_class: of the few-label measurement.
    seed: of validation split and draws of labels.
  """

  k: int = 20
  temperature: float = 0.07
  labels_per_class: tuple[int, ...] = (1, 5, 10)
  seed: int = 0

  def describe(self) -> dict[str, str]:
    """In words, by the name of the result."""
    penalties = f'one of {len(probe.L2_GRID)} log-spaced L2 penalties'
    return {
      'knn_top1': f'cosine kNN on train, k = {self.k}, exp(similarity / '
      f'{self.temperature}) weights; one pass over test',
      'linear_top1': 'multinomial logistic regression on standardised features, '
      f'{penalties} chosen by the loss on a stratified fifth of train, refitted on all '
      'of train; one pass over test',
      'few_label_top1': 'such a regression, L2 penalty 0.01, from n labels per class, '
      'mean over 5 draws of labels; one pass over test',
    }


def knn_top1(
  train: features.Share, test: features.Share, *, num_classes: int, protocol: Protocol
) -> float:
  """Top-1 accuracy of weighted kNN, of the examples of all hosts."""
  scores = knn.scores(
    train.features,
    train.labels,
    test.features,
    num_classes=num_classes,
    k=protocol.k,
    temperature=protocol.temperature,
    train_rows=train.rows,
  )
  return knn.top_k_accuracy(scores, test.labels)


def linear_top1(
  train: Split, test: Split, *, num_classes: int, protocol: Protocol
) -> float:
  """Top-1 accuracy of L2-regularised logistic regression, its L2 chosen on train."""
  # Statistics of the training features, for both splits.
  mean, scale = probe.standardize(train.features)
  fitted = probe.fit_selected(
    (train.features - mean) / scale,
    train.labels,
    num_classes=num_classes,
    seed=protocol.seed,
  )
  logits = probe.predict(fitted, (test.features - mean) / scale)
  return float(metrics.top_k_accuracy(logits, test.labels))


def pixels(batches: Iterable[dict[str, np.ndarray]]) -> Split:
  """The images of a pass (see `loader.one_pass`) themselves as features, in [0, 1]."""
  images, labels = features.extract(lambda batch: batch['image'], batches)
  return Split(images.reshape(len(images), -1).astype(np.float32) / 255, labels)


def compare(
  representations: dict[str, tuple[Split, Split]],
  *,
  num_classes: int,
  protocol: Protocol,
) -> dict[str, Any]:
  """Measures each representation on the same splits.

  Args:
    representations: name -> (train, test).
    num_classes: of the labels.
    protocol: settings, the same for all.

  Returns:
    'linear_top1' of the last representation; of each, by name, 'knn_top1' and
    'linear_top1' under 'representations', and 'few_label_top1', by labels per class.
  """
  measured, few_labels = {}, {}
  for name, (train, test) in representations.items():
    shares = features.of_whole(*train), features.of_whole(*test)
    measured[name] = {
      'knn_top1': knn_top1(*shares, num_classes=num_classes, protocol=protocol),
      'linear_top1': linear_top1(
        train, test, num_classes=num_classes, protocol=protocol
      ),
    }
    few_labels[name] = few_label.few_label_top1(
      *shares[0][:2],
      *shares[1][:2],
      num_classes=num_classes,
      labels_per_class=protocol.labels_per_class,
      seed=protocol.seed,
      train_rows=shares[0].rows,
    )
  last = list(measured)[-1]
  return {
    'linear_top1': measured[last]['linear_top1'],
    'representations': measured,
    'few_label_top1': few_labels,
  }


def table(comparison: dict[str, Any]) -> str:
  """What `compare` measured, as lines of text."""
  few_labels = comparison['few_label_top1']
  counts = list(next(iter(few_labels.values())))
  rows = [['', 'kNN', 'linear', *(f'{count} per class' for count in counts)]]
  for name, measured in comparison['representations'].items():
    values = [measured['knn_top1'], measured['linear_top1'], *few_labels[name].values()]
    rows.append([name, *(f'{value:.3f}' for value in values)])
  return printed.columns(rows, width=13, first=10)


def sentence(comparison: dict[str, Any], split: str) -> str:
  """What the last representation was measured to be, against the first, in words.

  Args:
    comparison: what `compare` measured.
    split: the name of the images that it was measured on.
  """
  *others, (_, after) = comparison['representations'].items()
  parts = []
  for kind, key in (('kNN', 'knn_top1'), ('linear', 'linear_top1')):
    against = ''.join(f' ({x} {100 * of[key]:.1f} %)' for x, of in others[:1])
    parts.append(f'{kind} {100 * after[key]:.1f} %{against}')
  return f'top-1 on {split}: {", ".join(parts)}'
