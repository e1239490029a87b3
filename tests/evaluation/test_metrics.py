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
