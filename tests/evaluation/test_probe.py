import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import datasets, linear_model, preprocessing

from sslhsic.evaluation import probe

# Every seventh λ of the grid, from 1e-6 to 3e4.
L2S = probe.L2_GRID[::7]


@functools.cache
def data_set(name):
  """Features [n, d] and labels [n]."""
  if name == 'digits':
    features, labels = datasets.load_digits(return_X_y=True)
    return features[:600] / 16, labels[:600]
  if name == 'wine':
    features, labels = datasets.load_wine(return_X_y=True)
    return preprocessing.scale(features), labels
  if name == 'breast_cancer':
    features, labels = datasets.load_breast_cancer(return_X_y=True)
    return preprocessing.scale(features), labels
  return datasets.make_classification(
    178, 13, n_informative=8, n_classes=3, flip_y=0.1, shift=2.0, random_state=0
  )


def scikit_learn(features, labels, l2):
  """The minimum, by Newton steps in float64, as weights [d, C] and bias [C]."""
  # Of two classes scikit-learn penalises one weight vector w, the softmax ±w/2.
  penalty = l2 / 2 if labels.max() == 1 else l2
  model = linear_model.LogisticRegression(
    C=1 / (len(labels) * penalty), solver='newton-cg', tol=1e-8, max_iter=1000
  ).fit(features, labels)
  weights, bias = model.coef_.T, model.intercept_
  if labels.max() == 1:
    weights = np.concatenate([-weights / 2, weights / 2], axis=1)
    bias = np.concatenate([-bias / 2, bias / 2])
  return probe.LinearProbe(weights, bias)


def objective(fitted, features, labels, l2):
  """Mean cross-entropy + λ/2 ‖W‖², in float64."""
  weights, bias = (np.asarray(leaf, np.float64) for leaf in fitted)
  log_probabilities = special.log_softmax(features @ weights + bias, axis=1)
  cross_entropy = -log_probabilities[np.arange(len(labels)), labels].mean()
  return cross_entropy + l2 / 2 * np.sum(weights**2)


def accuracy(fitted, features, labels):
  """Top-1, in float64."""
  weights, bias = (np.asarray(leaf, np.float64) for leaf in fitted)
  return np.mean(np.argmax(features @ weights + bias, axis=1) == labels)


@pytest.fixture(scope='module')
def wine_path():
  """The path of L2S on wine, shared by the tests that need one."""
  return probe.fit_path(*data_set('wine'), num_classes=3, l2s=L2S)


@pytest.mark.parametrize(
  ('name', 'num_classes'),
  [('digits', 10), ('breast_cancer', 2), ('make_classification', 3)],
)
def test_a_path_reaches_the_minimum_and_accuracy_of_scikit_learn(name, num_classes):
  features, labels = data_set(name)
  path = probe.fit_path(features, labels, num_classes=num_classes, l2s=L2S)
  for index, l2 in enumerate(L2S):
    ours = jax.tree.map(lambda leaf, index=index: leaf[index], path)
    theirs = scikit_learn(features, labels, l2)
    minimum = objective(theirs, features, labels, l2)
    np.testing.assert_allclose(
      objective(ours, features, labels, l2), minimum, rtol=1e-4, err_msg=f'{l2=}'
    )
    assert accuracy(ours, features, labels) == pytest.approx(
      accuracy(theirs, features, labels), abs=0.003
    )


def test_weights_are_those_of_scikit_learn():
  features, labels = data_set('wine')
  ours = probe.fit(features, labels, num_classes=3, l2=0.1)
  theirs = scikit_learn(features, labels, 0.1)
  np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-3)
  # A constant added to the bias of every class changes nothing.
  np.testing.assert_allclose(
    ours.bias - ours.bias.mean(), theirs.bias - theirs.bias.mean(), atol=1e-3
  )


@pytest.mark.parametrize('l2', [1e-3, 1e-1])
def test_several_labels_are_a_logistic_regression_for_each_class(l2):
  """Scikit-learn's, without the examples that are not to be judged for a class."""
  features, classes = data_set('wine')
  rng = np.random.default_rng(0)
  noise = rng.random(len(classes)) < 0.3
  labels = np.stack([classes == 0, classes != 1, noise], axis=1)
  labels = np.where(rng.random(labels.shape) < 0.1, -1, labels).astype(np.int32)
  ours = probe.fit(features, labels, num_classes=3, l2=l2)
  for label in range(3):
    judged = labels[:, label] >= 0
    theirs = linear_model.LogisticRegression(
      C=1 / (len(labels) * l2), solver='newton-cg', tol=1e-8, max_iter=1000
    ).fit(features[judged], labels[judged, label])
    np.testing.assert_allclose(ours.weights[:, label], theirs.coef_[0], atol=2e-2)
    np.testing.assert_allclose(ours.bias[label], theirs.intercept_[0], atol=2e-2)


def test_features_of_very_different_scales_and_offsets():
  features, labels = datasets.load_wine(return_X_y=True)
  fitted = probe.fit(features, labels, num_classes=3, l2=0.1)
  minimum = objective(scikit_learn(features, labels, 0.1), features, labels, 0.1)
  assert objective(fitted, features, labels, 0.1) == pytest.approx(minimum, rel=1e-4)


def test_objective_and_predict_by_hand():
  fitted = probe.LinearProbe(jnp.array([[1.0, -1.0]]), jnp.array([0.5, 0.0]))
  features = jnp.array([[2.0], [0.0]])
  logits = probe.predict(fitted, features)
  np.testing.assert_allclose(logits, [[2.5, -2.0], [0.5, 0.0]])
  losses = [np.log1p(np.exp(-4.5)), np.log1p(np.exp(0.5))]
  value = probe.objective(fitted, features, jnp.array([0, 1]), 0.3)
  np.testing.assert_allclose(value, np.mean(losses) + 0.3 / 2 * 2, rtol=1e-6)


def test_example_without_a_label_adds_nothing():
  logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  labels = np.array([2, -1, 0])
  losses, back = jax.vjp(lambda x: probe.cross_entropies(x, labels), logits)
  expected = -special.log_softmax(logits, axis=1)[[0, 2], [2, 0]]
  np.testing.assert_allclose(losses, [expected[0], 0, expected[1]], rtol=1e-6)
  (gradient,) = back(np.ones(3, np.float32))
  np.testing.assert_array_equal(np.any(gradient, axis=1), [True, False, True])


def test_objective_is_exact_where_the_softmax_is_almost_certain():
  fitted = probe.LinearProbe(jnp.array([[20.0, 0.0, 1.0]]), jnp.zeros(3))
  value = probe.objective(fitted, jnp.ones((1, 1)), jnp.array([0]), 0.0)
  np.testing.assert_allclose(value, np.log1p(np.exp(-20) + np.exp(-19)), rtol=1e-5)


def test_a_single_fit_is_the_element_of_the_path(wine_path):
  features, labels = data_set('wine')
  fitted = probe.fit(features, labels, num_classes=3, l2=L2S[2])
  np.testing.assert_allclose(
    objective(fitted, features, labels, L2S[2]),
    objective([leaf[2] for leaf in wine_path], features, labels, L2S[2]),
    rtol=1e-5,
  )


def test_penalties_may_come_in_any_order(wine_path):
  shuffle = [3, 0, 6, 1, 5, 2, 4]
  path = probe.fit_path(
    *data_set('wine'), num_classes=3, l2s=[L2S[index] for index in shuffle]
  )
  np.testing.assert_array_equal(path.weights, wine_path.weights[np.array(shuffle)])
  np.testing.assert_array_equal(path.bias, wine_path.bias[np.array(shuffle)])


def test_the_bias_is_not_penalised():
  features, labels = data_set('wine')
  fitted = probe.fit(features, labels, num_classes=3, l2=1e6)
  probabilities = special.softmax(probe.predict(fitted, features), axis=1)
  frequencies = np.bincount(labels) / len(labels)
  np.testing.assert_allclose(
    probabilities, np.tile(frequencies, (len(labels), 1)), rtol=1e-4
  )


def test_a_class_without_examples_is_never_predicted():
  features, labels = data_set('wine')
  labels = np.minimum(labels, 1)
  fitted = probe.fit(features, labels, num_classes=3, l2=0.1)
  minimum = objective(scikit_learn(features, labels, 0.1), features, labels, 0.1)
  assert objective(fitted, features, labels, 0.1) == pytest.approx(minimum, rel=1e-4)
  probabilities = special.softmax(probe.predict(fitted, features), axis=1)
  assert probabilities[:, 2].max() < 1e-4


def test_constant_features_get_no_weight():
  features, labels = data_set('wine')
  features = np.where(np.arange(13) == 5, 0.1, features)
  fitted = probe.fit(features, labels, num_classes=3, l2=0.1)
  np.testing.assert_allclose(fitted.weights[5], 0, atol=1e-5)


def test_select_measures_penalties_and_refits_on_all_examples():
  features, labels = data_set('wine')
  noise = np.random.default_rng(0).normal(size=features.shape)
  features = features + 2 * noise
  train, validation = probe.stratified_split(labels, fraction=0.3, seed=0)
  selection = probe.select(
    features[train],
    labels[train],
    features[validation],
    labels[validation],
    num_classes=3,
    l2s=L2S,
  )
  expected = [
    objective(
      scikit_learn(features[train], labels[train], l2),
      features[validation],
      labels[validation],
      l2=0,
    )
    for l2 in L2S
  ]
  is_tried = np.isfinite(selection.losses)
  np.testing.assert_allclose(
    selection.losses[is_tried], np.array(expected)[is_tried], rtol=1e-3
  )
  # What is left out is weaker than one that overfits.
  weakest = is_tried.argmax()
  assert is_tried[weakest:].all()
  assert weakest == 0 or expected[weakest] > 1.25 * min(expected)
  best = L2S[np.argmin(expected)]
  assert selection.l2 == best
  assert best not in (L2S[0], L2S[-1])
  minimum = objective(scikit_learn(features, labels, best), features, labels, best)
  assert objective(selection.probe, features, labels, best) == pytest.approx(
    minimum, rel=1e-4
  )
  fitted = probe.fit_selected(
    features, labels, num_classes=3, l2s=L2S, validation_fraction=0.3, seed=0
  )
  np.testing.assert_allclose(fitted.weights, selection.probe.weights, atol=1e-6)


def test_penalties_that_only_overfit_more_are_not_tried():
  features, labels = data_set('wine')
  noise = np.random.default_rng(1).normal(size=(len(labels), 400))
  train, validation = np.arange(0, 178, 2), np.arange(1, 178, 2)
  noisy = np.concatenate([features + 2 * noise[:, :13], noise[:, 13:]], axis=1)
  split = (noisy[train], labels[train], noisy[validation], labels[validation])
  shuffled = np.random.default_rng(2).permutation(probe.L2_GRID).tolist()
  selection = probe.select(*split, num_classes=3, l2s=shuffled)
  weak_to_strong = np.argsort(shuffled)
  losses = selection.losses[weak_to_strong]
  is_tried = np.isfinite(losses)
  assert 20 < is_tried.sum() < 40
  assert not is_tried[: is_tried.argmax()].any()
  assert is_tried[is_tried.argmax() :].all()
  # The best of all 45 is among those that were tried.
  path = probe.fit_path(*split[:2], num_classes=3, l2s=shuffled)
  every = [
    objective([leaf[index] for leaf in path], *split[2:], l2=0) for index in range(45)
  ]
  assert selection.l2 == shuffled[int(np.argmin(every))]


def test_stratified_split_is_a_partition_in_proportion():
  labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 20, 5]))
  kept, held_out = probe.stratified_split(labels, fraction=0.2, seed=1)
  np.testing.assert_array_equal(np.sort(np.append(kept, held_out)), np.arange(75))
  np.testing.assert_array_equal(np.bincount(labels[held_out]), [10, 4, 1])
  again = probe.stratified_split(labels, fraction=0.2, seed=1)[1]
  other = probe.stratified_split(labels, fraction=0.2, seed=2)[1]
  np.testing.assert_array_equal(held_out, again)
  assert set(held_out) != set(other)


def test_stratified_split_of_rare_classes():
  labels = np.array([0, 0, 1, 2, 2, 2])
  kept, held_out = probe.stratified_split(labels, fraction=0.1, seed=0)
  np.testing.assert_array_equal(np.bincount(labels[held_out], minlength=3), [1, 0, 1])
  np.testing.assert_array_equal(np.bincount(labels[kept]), [1, 1, 2])
  with pytest.raises(ValueError, match='every class has only one'):
    probe.stratified_split(np.arange(4), fraction=0.5, seed=0)


@pytest.mark.parametrize('fraction', [0.0, 1.0])
def test_stratified_split_refuses_a_fraction_out_of_range(fraction):
  with pytest.raises(ValueError, match='fraction to hold out is'):
    probe.stratified_split(np.array([0, 0, 1, 1]), fraction=fraction, seed=0)


def test_standardize_is_that_of_scikit_learn():
  features = np.random.default_rng(0).normal(3, 5, size=(50, 4))
  features[:, 2] = 0.1
  mean, scale = probe.standardize(features)
  assert mean.shape == scale.shape == (1, 4)
  np.testing.assert_allclose(
    (features - mean) / scale,
    preprocessing.StandardScaler().fit_transform(features),
    atol=1e-5,
  )


@pytest.mark.parametrize('l2', [0.0, -1.0])
def test_a_penalty_that_is_not_positive_is_an_error(l2):
  with pytest.raises(ValueError, match='smallest L2 penalty is'):
    probe.fit(*data_set('wine'), num_classes=3, l2=l2)


@pytest.mark.parametrize(('shift', 'found'), [(1, 'from 1 to 3'), (-1, 'from -1 to 1')])
def test_labels_out_of_range_are_an_error(shift, found):
  features, labels = data_set('wine')
  with pytest.raises(ValueError, match=found):
    probe.fit(features, labels + shift, num_classes=3, l2=1.0)


def test_shapes_that_do_not_match_are_an_error():
  features, labels = data_set('wine')
  with pytest.raises(AssertionError):
    probe.fit(features, labels[:-1], num_classes=3, l2=1.0)
