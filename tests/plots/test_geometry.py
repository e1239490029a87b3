"""Geometry of embeddings, against scikit-learn."""

import numpy as np
import pytest
from sklearn import decomposition, neighbors

from sslhsic.plots import geometry


def test_neighbours_and_spectrum_are_those_of_scikit_learn():
  features = np.random.default_rng(0).normal(size=(40, 6))
  rows = np.array([3, 17])
  found = geometry.neighbours(features, rows, 5)
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  index = neighbors.NearestNeighbors(n_neighbors=6).fit(directions)
  np.testing.assert_array_equal(found, index.kneighbors(directions[rows])[1][:, 1:])
  pca = decomposition.PCA().fit(features)
  np.testing.assert_allclose(
    geometry.spectrum(features), pca.explained_variance_ratio_, rtol=1e-6
  )
  assert not geometry.spectrum(np.ones((5, 3))).any()


@pytest.mark.parametrize('value', [0, 0.1, 3])
def test_features_that_do_not_vary_are_one_point(value):
  features = np.full((40, 6), value, np.float32)
  assert not geometry.tsne(features).any()
  np.testing.assert_allclose(geometry.maps(features)['PCA'], 0, atol=1e-9)


def test_maps_are_of_directions():
  features = np.random.default_rng(0).normal(size=(40, 6))
  lengths = np.random.default_rng(1).uniform(1, 9, (40, 1))
  maps, scaled = geometry.maps(features), geometry.maps(lengths * features)
  assert maps['t-SNE'].shape == (40, 2)
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  expected = decomposition.PCA(2).fit_transform(directions)
  np.testing.assert_allclose(np.abs(maps['PCA']), np.abs(expected), atol=1e-9)
  np.testing.assert_allclose(np.abs(scaled['PCA']), np.abs(maps['PCA']), atol=1e-9)
