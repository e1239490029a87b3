"""Loss and scores of segmentation against scikit-learn and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from sslhsic.data.annotations import VOID
from sslhsic.tasks.segmentation import scores


@pytest.fixture(scope='module')
def example():
  """Logits of four images of four classes, of which the last is never true."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 5, 6, 4)).astype(np.float32)
  classes = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
  classes[0, :2] = VOID
  classes[1] = VOID
  return logits, classes


def test_loss_is_that_of_scikit_learn(example):
  logits, classes = example
  judged = classes != VOID
  expected = sklearn_metrics.log_loss(
    classes[judged], jax.nn.softmax(logits)[judged], labels=range(4)
  )
  loss = scores.cross_entropy(logits, classes).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_and_gradient_are_equal_on_devices_with_unequal_void(example):
  logits, classes = example
  mean = lambda x, y, axis_name=None: scores.cross_entropy(x, y).mean(axis_name)
  value_and_grad = jax.value_and_grad(mean)
  loss, gradient = value_and_grad(logits, classes)
  on_devices = jax.pmap(
    lambda x, y: jax.value_and_grad(mean)(x, y, 'i'),
    axis_name='i',
  )
  split = lambda x: x.reshape(4, 1, *x.shape[1:])
  losses, gradients = on_devices(split(logits), split(classes))
  np.testing.assert_allclose(losses, np.full(4, loss), rtol=1e-6)
  # Each device's is that of the mean over devices.
  np.testing.assert_allclose(gradients[:, 0] / 4, gradient, atol=1e-7)


def test_void_changes_nothing(example):
  logits, classes = example
  padded = np.pad(logits, [(0, 0), (0, 2), (0, 3), (0, 0)], constant_values=7.0)
  void = np.pad(classes, [(0, 0), (0, 2), (0, 3)], constant_values=VOID)
  np.testing.assert_allclose(
    scores.cross_entropy(padded, void).mean(),
    scores.cross_entropy(logits, classes).mean(),
    rtol=1e-6,
  )
  np.testing.assert_array_equal(
    scores.confusion_matrices(padded, void),
    scores.confusion_matrices(logits, classes),
  )
  assert scores.cross_entropy(logits, np.full_like(classes, VOID)).mean() == 0


def test_scores_are_those_of_scikit_learn(example):
  logits, classes = example
  confusion = np.asarray(scores.confusion_matrices(logits, classes))
  assert confusion[1].sum() == 0
  judged = classes != VOID
  truth, predicted = classes[judged], logits.argmax(axis=-1)[judged]
  np.testing.assert_array_equal(
    confusion.sum(axis=0),
    sklearn_metrics.confusion_matrix(truth, predicted, labels=range(4)),
  )
  np.testing.assert_allclose(
    scores.intersection_over_union(confusion.sum(axis=0)),
    sklearn_metrics.jaccard_score(truth, predicted, average=None, labels=range(4)),
  )


def test_a_class_that_is_nowhere_has_no_score():
  iou = scores.intersection_over_union(np.array([[3, 1, 0], [0, 4, 0], [0] * 3]))
  np.testing.assert_allclose(iou, [3 / 4, 4 / 5, np.nan])


def test_other_types_are_refused(example):
  logits, classes = example
  with pytest.raises(AssertionError, match='int32'):
    scores.cross_entropy(logits, classes.astype(np.int32))
  with pytest.raises(AssertionError, match='rank'):
    scores.confusion_matrices(jnp.zeros((4, 5, 6)), classes)
