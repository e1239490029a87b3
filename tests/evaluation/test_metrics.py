import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from sslhsic.evaluation import metrics


def random_scores(num_examples=60, num_classes=5):
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(num_examples, num_classes)).astype(np.float32)
  labels = rng.choice(num_classes, num_examples, p=[0.5, 0.2, 0.15, 0.1, 0.05])
  return scores, labels


@pytest.mark.parametrize('k', [1, 2, 4])
def test_top_k_accuracy_is_that_of_scikit_learn(k):
  scores, labels = random_scores()
  expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(5))
  np.testing.assert_allclose(
    metrics.top_k_accuracy(scores, labels, k), expected, rtol=1e-6
  )


def test_top_k_accuracy_by_hand():
  scores = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
  labels = jnp.array([1, 1, 0])
  assert metrics.top_k_accuracy(scores, labels) == pytest.approx(1 / 3)
  assert metrics.top_k_accuracy(scores, labels, 2) == pytest.approx(2 / 3)
  assert metrics.top_k_accuracy(scores, labels, 3) == 1


def test_constant_scores_earn_chance():
  labels = jnp.arange(12) % 4
  assert metrics.top_k_accuracy(jnp.zeros((12, 4)), labels) == 0.25
  assert metrics.top_k_accuracy(jnp.zeros((12, 4)), labels, 3) == 0.75


@pytest.mark.parametrize('k', [0, 6])
def test_top_k_accuracy_refuses_k_out_of_range(k):
  with pytest.raises(ValueError, match=f'k is {k} for scores of 5 classes'):
    metrics.top_k_accuracy(*random_scores(), k)


def test_mean_per_class_accuracy_is_balanced_accuracy():
  scores, labels = random_scores()
  expected = reference.balanced_accuracy_score(labels, scores.argmax(axis=1))
  assert abs(expected - metrics.top_k_accuracy(scores, labels)) > 0.01
  np.testing.assert_allclose(
    metrics.mean_per_class_accuracy(scores, labels), expected, rtol=1e-6
  )


def test_mean_per_class_accuracy_by_hand_with_a_class_that_does_not_occur():
  predicted = jnp.array([0, 0, 0, 1, 2, 1])
  labels = jnp.array([0, 0, 0, 0, 1, 1])
  accuracy = metrics.mean_per_class_accuracy(jax.nn.one_hot(predicted, 3), labels)
  assert accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_metrics_can_be_jitted_and_return_float32_scalars():
  scores, labels = random_scores()
  for metric in (metrics.top_k_accuracy, metrics.mean_per_class_accuracy):
    value = jax.jit(metric)(scores, labels)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, metric(scores, labels), rtol=1e-6)


def test_metrics_refuse_labels_that_do_not_fit():
  scores, labels = random_scores()
  for metric in (metrics.top_k_accuracy, metrics.mean_per_class_accuracy):
    with pytest.raises(AssertionError):
      metric(scores, labels[:-1])
    with pytest.raises(AssertionError):
      metric(scores, labels.astype(np.float32))


def _eleven_points(scores, labels):
  """From scikit-learn's curve, whose precision is that at each threshold."""
  curve = reference.precision_recall_curve(labels, scores)[:2]
  precision, recall = (points[:-1] for points in curve)  # The last is no threshold.
  return np.mean([precision[recall >= r - 1e-9].max() for r in np.linspace(0, 1, 11)])


def test_mean_average_precision_is_that_of_scikit_learns_curve():
  rng = np.random.default_rng(0)
  labels = (rng.random((80, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(np.int32)
  scores = np.round(rng.normal(size=(80, 4)) + labels, 1)  # Some are equal.
  expected = np.mean([_eleven_points(scores[:, c], labels[:, c]) for c in range(4)])
  assert metrics.mean_average_precision(scores, labels) == pytest.approx(expected)


def test_mean_average_precision_by_hand():
  # In order: hit, miss, hit. Recall up to 0.5 at precision 1, up to 1 at 2/3.
  scores = np.array([[0.9], [0.8], [0.1]])
  labels = np.array([[1], [0], [1]])
  expected = pytest.approx((6 + 5 * 2 / 3) / 11)
  assert metrics.mean_average_precision(scores, labels) == expected


def test_what_is_not_to_be_judged_does_not_change_the_mean_average_precision():
  rng = np.random.default_rng(1)
  scores, labels = rng.normal(size=(30, 3)), rng.integers(0, 2, (30, 3))
  more = np.concatenate([scores, rng.normal(size=(20, 3))])
  ignored = np.concatenate([labels, np.full((20, 3), -1)])
  empty = np.zeros((50, 1), int)
  expected = metrics.mean_average_precision(scores, labels)
  assert metrics.mean_average_precision(more, ignored) == expected
  with_empty = np.hstack([ignored, empty]), np.hstack([more, empty])
  assert metrics.mean_average_precision(with_empty[1], with_empty[0]) == expected
  with pytest.raises(ValueError, match='none of 50 examples is of any class'):
    metrics.mean_average_precision(empty, empty)


def test_constant_scores_earn_the_share_of_the_positives():
  labels = (np.arange(20) % 4 == 0).astype(int)[:, None]
  assert metrics.mean_average_precision(np.zeros((20, 1)), labels) == 0.25
