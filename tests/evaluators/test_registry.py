"""Evaluators by name, and what each says of its settings."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import neighbors

from sslhsic import evaluators, hsic


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    ('kmeans', {}, "unknown evaluator 'kmeans'; use one of knn, online_classifier"),
    ('knn', {'n': 3}, "the evaluator knn has no setting 'n'; use .*temperature"),
    ('collapse', {'train_split': 'train'}, "no setting 'train_split'"),
    ('knn', {'k': 0}, 'k is 0; use 1 or more'),
    ('knn', {'temperature': 0.0}, 'temperature is 0.0; use a positive'),
    ('rankme', {'features': 'logits'}, "features is 'logits'; use 'embedding' or"),
    ('alpha_req', {'ranks': (0, 5)}, r'ranks is \(0, 5\); use \(first, last\)'),
    ('alpha_req', {'ranks': (5, 5)}, r'ranks is \(5, 5\)'),
    ('alpha_req', {'ranks': (5,)}, r'ranks is \(5,\)'),
    ('lidar', {'num_views': 1}, 'num_views is 1; use 2 or more'),
    ('lidar', {'num_images': 1}, 'num_images is 1; use 2 or more'),
    ('label_dependence', {'num_images': 3}, 'num_images is 3; use 4 or more'),
    ('label_dependence', {'kernel': 'rbf'}, "unknown kernel 'rbf'; use one of linear,"),
    ('label_dependence', {'num_permutations': 0}, 'num_permutations is 0'),
    ('reference_cka', {'scale': 0.0}, 'scale is 0.0; use a positive number, or None'),
  ],
)
def test_mistake_names_the_setting(name, settings, message):
  with pytest.raises(ValueError, match=message):
    evaluators.create(name, **settings)


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    ('knn', {'k': 11}, 'k is 11, but the train split has 10 images'),
    ('alpha_req', {}, r'ranks is \(11, 50\), but the test split has 12 images'),
    ('lidar', {'num_images': 13}, 'num_images is 13, but the test split has 12'),
  ],
)
def test_too_few_images_are_named(name, settings, message):
  with pytest.raises(ValueError, match=message):
    evaluators.create(name, **settings).check_sizes(num_train=10, num_test=12)


@pytest.mark.parametrize(
  ('name', 'settings', 'needs_as_many'),
  [
    ('knn', {'k': 10}, True),
    ('alpha_req', {'ranks': (10, 50)}, True),
    ('lidar', {'num_images': 12}, True),
    ('collapse', {}, False),
  ],
)
def test_enough_images_are_enough_and_one_less_is_not(name, settings, needs_as_many):
  evaluator = evaluators.create(name, **settings)
  evaluator.check_sizes(num_train=10, num_test=12)
  fewer = contextlib.nullcontext()
  if needs_as_many:
    fewer = pytest.raises(ValueError, match='images')
  with fewer:
    evaluator.check_sizes(num_train=9, num_test=11)


@pytest.fixture(scope='module')
def inputs():
  """Ten classes of features that overlap."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(10, 16))

  def split(count):
    labels = np.arange(count, dtype=np.int32) % 10
    noise = rng.normal(size=(count, 16))
    arrays = {
      'embedding': centres[labels] + noise,
      'logits': rng.normal(size=(count, 10)),
    }
    return {k: np.float32(x) for k, x in arrays.items()} | {
      'label': labels,
      'row': np.arange(count),
    }

  return evaluators.Inputs(train=split(200), test=split(80), num_classes=10)


@pytest.mark.parametrize('k', [1, 7])
def test_knn_is_the_weighted_vote_of_scikit_learn(inputs, k):
  vote = neighbors.KNeighborsClassifier(
    k, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.5)
  )
  vote.fit(inputs.train['embedding'], inputs.train['label'])
  expected = vote.score(inputs.test['embedding'], inputs.test['label'])
  assert 0.2 < expected < 1
  found = evaluators.create('knn', k=k, temperature=0.5)(inputs)
  assert found == {'knn_top1': pytest.approx(expected)}


def test_online_classifier_is_the_share_of_greatest_logits(inputs):
  hits = [
    np.argmax(row) == label
    for row, label in zip(inputs.test['logits'], inputs.test['label'], strict=True)
  ]
  found = evaluators.create('online_classifier')(inputs)
  assert found == {'online_top1': pytest.approx(np.mean(hits))}


def test_label_dependence_is_that_of_the_labelled_images(inputs):
  """Unbiased HSIC with the linear kernel, and CKA, from Gram matrices."""
  features, labels = inputs.test['embedding'], inputs.test['label']
  some = np.where(np.arange(80) < 60, labels, -1)
  inputs = inputs._replace(test={'embedding': features, 'label': some})
  found = evaluators.create('label_dependence', kernel='linear')(inputs)
  x = jnp.asarray(features[:60] @ features[:60].T)
  y = jnp.asarray(labels[:60, None] == labels[None, :60], jnp.float32)
  both, of_x, of_y = (hsic.unbiased_hsic(*grams) for grams in ((x, y), (x, x), (y, y)))
  assert found['label_hsic'] == pytest.approx(float(both), rel=1e-4)
  assert found['label_cka'] == pytest.approx(float(both / (of_x * of_y) ** 0.5), 1e-4)
  assert found['label_p_value'] == pytest.approx(1 / 200)


def test_reference_cka_of_a_rotation_is_one(inputs):
  features = inputs.test['embedding']
  rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
  cka = evaluators.create('reference_cka', num_images=50)
  of = lambda other: cka(inputs._replace(reference={'embedding': other}))
  assert of(3 * features @ rotation) == {'reference_cka': pytest.approx(1, abs=1e-4)}
  noise = np.random.default_rng(1).normal(size=(80, 16))
  assert abs(of(noise)['reference_cka']) < 0.2
  with pytest.raises(ValueError, match=r'80 images of test, .* initial 79'):
    of(features[1:])


def test_results_are_floats_with_a_protocol_each(inputs):
  views = {'embedding': np.random.default_rng(0).normal(size=(6, 3, 16))}
  inputs = inputs._replace(views=views, reference=inputs.test)
  for name in evaluators.EVALUATORS:
    evaluator = evaluators.create(name)
    results = evaluator(inputs)
    assert list(results) == list(evaluator.describe())
    assert all(type(value) is float for value in results.values())
