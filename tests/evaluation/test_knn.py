import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import neighbors

from sslhsic import parallel
from sslhsic.evaluation import knn

RNG = np.random.default_rng(0)
LABELS = RNG.integers(4, size=90)
TRAIN = RNG.normal(size=(90, 8)) + np.eye(4, 8)[LABELS] * 2
TEST = RNG.normal(size=(37, 8)) + np.eye(4, 8)[RNG.integers(4, size=37)] * 2

scores = functools.partial(knn.scores, num_classes=4)


def scikit_learn(k, temperature):
  """Votes of exp((1 − cosine distance) / τ), as shares."""
  model = neighbors.KNeighborsClassifier(
    k,
    weights=lambda distance: np.exp((1 - distance) / temperature),
    metric='cosine',
    algorithm='brute',
  )
  return model.fit(TRAIN, LABELS).predict_proba(TEST)


@pytest.mark.parametrize(('k', 'temperature'), [(20, 0.07), (1, 0.07), (90, 0.5)])
def test_scores_are_those_of_scikit_learn(k, temperature):
  np.testing.assert_allclose(
    scores(TRAIN, LABELS, TEST, k=k, temperature=temperature),
    scikit_learn(k, temperature),
    atol=2e-5,
  )


@pytest.mark.parametrize(
  ('devices', 'num_queries', 'block'), [(1, 10, 7), (3, 12, 5), (8, 1, 64)]
)
def test_parts_and_devices_do_not_change_the_neighbours(
  devices, num_queries, block, monkeypatch
):
  """Every training example is there twice: the first copy is nearer."""
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:devices])
  monkeypatch.setattr(knn, '_NUM_QUERIES', num_queries)
  monkeypatch.setattr(knn, '_BLOCK', block)
  twice, labels = np.concatenate([TRAIN, TRAIN]), np.arange(180)
  found = knn.neighbours(twice, labels, TEST, k=20)
  model = neighbors.NearestNeighbors(n_neighbors=10, metric='cosine').fit(TRAIN)
  distances, places = model.kneighbors(TEST)
  np.testing.assert_array_equal(found.labels[:, ::2], places)
  np.testing.assert_array_equal(found.labels[:, 1::2], places + 90)
  np.testing.assert_allclose(found.similarities[:, ::2], 1 - distances, atol=1e-5)


def test_no_device_holds_more_of_the_training_examples_than_a_block(monkeypatch):
  """Nor does any memory grow with their number."""
  monkeypatch.setattr(knn, '_BLOCK', 4)
  put = []
  shard = parallel.shard
  monkeypatch.setattr(
    parallel, 'shard', lambda tree: put.append(shard(tree)) or put[-1]
  )
  knn.neighbours(TRAIN, LABELS, TEST, k=3)
  banks = [x for x in put if isinstance(x, knn.Bank)]
  assert [x.features.shape for x in banks] == [(8, 4, 8)] * 3
  assert all(x.data.shape == (1, 4, 8) for x in banks[0].features.addressable_shards)


def test_scores_by_hand():
  train = jnp.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
  votes = scores(
    train, jnp.array([1, 0, 1]), jnp.array([[5.0, 0.0]]), k=2, temperature=0.5
  )
  share = np.exp(1 / 0.5) / (np.exp(1 / 0.5) + np.exp(0))
  np.testing.assert_allclose(votes, [[1 - share, share, 0, 0]], rtol=1e-5)


def test_the_scale_of_the_features_does_not_matter():
  scales = np.exp(RNG.normal(size=(90, 1)))
  np.testing.assert_allclose(
    scores(TRAIN * scales, LABELS, TEST * 1e-3), scores(TRAIN, LABELS, TEST), atol=2e-5
  )


def test_a_tiny_temperature_does_not_overflow():
  votes = scores(TRAIN, LABELS, TEST, temperature=1e-3)
  nearest = scikit_learn(1, 1.0)
  np.testing.assert_array_equal(np.argmax(votes, axis=1), nearest.argmax(axis=1))


def test_a_zero_vector_is_equally_similar_to_everything():
  votes = scores(TRAIN, LABELS, np.zeros((1, 8)), k=90)
  np.testing.assert_allclose(votes[0], np.bincount(LABELS) / 90, rtol=1e-5)


def test_equally_similar_neighbours_count_in_the_order_of_the_training_set():
  votes = scores(np.ones((5, 3)), np.array([3, 1, 0, 0, 0]), np.ones((2, 3)), k=2)
  np.testing.assert_allclose(votes, [[0, 0.5, 0, 0.5]] * 2, rtol=1e-5)


def test_host_without_test_examples_has_no_scores():
  found = scores(TRAIN, LABELS, TEST[:0])
  assert found.shape == (0, 4)
  assert knn.top_k_accuracy(found, LABELS[:0]) == 0


@pytest.mark.parametrize('k', [0, 91])
def test_k_out_of_range_is_an_error(k):
  with pytest.raises(ValueError, match=f'k is {k} for 90 training examples'):
    scores(TRAIN, LABELS, TEST, k=k)


def test_unit_norm():
  rows = knn.unit_norm(np.array([[3, 4], [0, 0], [1e-8, 0]]))
  np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
  assert rows.dtype == jnp.float32


def test_classes_without_a_vote_are_not_named():
  """One neighbour votes for class 2; of classes 0 and 1 nothing is known."""
  found = scores(np.eye(8)[:3], np.array([2, 2, 3]), np.eye(8)[:1], k=1)
  np.testing.assert_allclose(found, [[0, 0, 1, 0]])
  assert knn.top_k_accuracy(found, np.array([2]), 3) == 1
  assert knn.top_k_accuracy(found, np.array([0]), 3) == 0
  assert knn.top_k_accuracy(found, np.array([3]), 4) == 0


@pytest.mark.parametrize('name', ['train_features', 'test_features'])
def test_features_that_are_not_finite_are_named(name):
  features = {'train_features': TRAIN.copy(), 'test_features': TEST.copy()}
  features[name][[7, 11], 2] = np.inf
  message = f'{name} has 2 of {len(features[name])} rows .* the first is row 7'
  with pytest.raises(ValueError, match=message):
    scores(features['train_features'], LABELS, features['test_features'], k=3)
