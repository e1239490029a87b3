import functools

import numpy as np
import pytest
from sklearn import datasets, linear_model, model_selection, preprocessing

from sslhsic.evaluation import few_label

IMAGES, DIGITS = datasets.load_digits(return_X_y=True)
SPLIT = model_selection.train_test_split(
  IMAGES, DIGITS, test_size=360, stratify=DIGITS, random_state=0
)
TRAIN, TEST, TRAIN_LABELS, TEST_LABELS = SPLIT

few_label_top1 = functools.partial(few_label.few_label_top1, num_classes=10)
draw_subsets = functools.partial(few_label.draw_subsets, TRAIN_LABELS, num_classes=10)


@pytest.fixture(scope='module')
def accuracies():
  return few_label_top1(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, labels_per_class=(10,))


def scikit_learn(labels_per_class, l2=1e-2):
  """Mean accuracy of LogisticRegression over the same subsets."""
  scaler = preprocessing.StandardScaler().fit(TRAIN)
  train, test = scaler.transform(TRAIN), scaler.transform(TEST)
  model = linear_model.LogisticRegression(
    C=1 / (10 * labels_per_class * l2), tol=1e-8, max_iter=10_000
  )
  subsets = draw_subsets(labels_per_class=labels_per_class, num_draws=5, seed=0)
  return np.mean(
    [
      model.fit(train[subset], TRAIN_LABELS[subset]).score(test, TEST_LABELS)
      for subset in subsets
    ]
  )


def test_accuracy_is_that_of_scikit_learn(accuracies):
  assert accuracies[10] == pytest.approx(scikit_learn(10), abs=0.003)


def test_pixels_of_digits_reach_the_known_accuracy(accuracies):
  assert set(accuracies) == {10}
  assert accuracies[10] == pytest.approx(0.896, abs=0.02)


def test_the_scale_of_the_features_does_not_matter(accuracies):
  shifted = [100 * features + 7 for features in (TRAIN, TEST)]
  again = few_label_top1(
    shifted[0], TRAIN_LABELS, shifted[1], TEST_LABELS, labels_per_class=(10,)
  )
  assert again[10] == pytest.approx(accuracies[10], abs=0.003)


def test_subsets_hold_every_class_equally_often_and_no_example_twice():
  subsets = draw_subsets(labels_per_class=5, num_draws=3, seed=0)
  assert subsets.shape == (3, 50)
  for subset in subsets:
    assert len(set(subset)) == 50
    np.testing.assert_array_equal(np.bincount(TRAIN_LABELS[subset]), [5] * 10)


def test_draws_and_seeds_give_different_subsets_and_a_seed_the_same():
  first = draw_subsets(labels_per_class=5, num_draws=3, seed=0)
  again = draw_subsets(labels_per_class=5, num_draws=2, seed=0)
  other = draw_subsets(labels_per_class=5, num_draws=2, seed=1)
  np.testing.assert_array_equal(first[:2], again)
  for one, two in [(first[0], first[1]), (first[0], other[0]), (first[1], other[1])]:
    assert len(set(one) & set(two)) < 25


def test_the_subset_of_fewer_labels_is_part_of_that_of_more():
  few = draw_subsets(labels_per_class=1, num_draws=4, seed=3)
  more = draw_subsets(labels_per_class=5, num_draws=4, seed=3)
  for small, large in zip(few, more, strict=True):
    assert set(small) < set(large)


def test_draws_are_uniform():
  labels = np.repeat([0, 1], [4, 6])
  subsets = few_label.draw_subsets(
    labels, num_classes=2, labels_per_class=2, num_draws=2000, seed=0
  )
  counts = np.bincount(subsets.ravel(), minlength=10) / 2000
  np.testing.assert_allclose(counts, np.repeat([1 / 2, 1 / 3], [4, 6]), atol=0.05)


def test_a_class_with_too_few_examples_is_an_error():
  labels = np.array([0] * 9 + [1] * 4 + [2] * 9)
  draw = functools.partial(few_label.draw_subsets, labels, num_draws=1, seed=0)
  with pytest.raises(ValueError, match='class 1 has 4 examples, but 5 labels'):
    draw(num_classes=3, labels_per_class=5)
  with pytest.raises(ValueError, match='class 3 has 0 examples, but 1 labels'):
    draw(num_classes=4, labels_per_class=1)
