"""RankMe, α-ReQ and LiDAR: by their formulas in NumPy, and where they are known."""

import numpy as np
import pytest
from scipy import linalg, stats

from sslhsic import evaluators
from sslhsic.evaluators import alpha_req, lidar, rankme


def _rng(seed=0):
  return np.random.default_rng(seed)


def _orthonormal(rows, columns, seed=0):
  """Random orthonormal columns of mean zero."""
  noise = _rng(seed).normal(size=(rows, columns))
  return np.linalg.qr(noise - noise.mean(axis=0))[0]


def _with_spectrum(singular_values, rows=120):
  """Centred features with these singular values."""
  dim = len(singular_values)
  rotation = np.linalg.qr(_rng(1).normal(size=(dim, dim)))[0]
  return _orthonormal(rows, dim) * singular_values @ rotation


def _measure(name, features, **settings):
  evaluator = evaluators.create(name, **settings)
  return evaluator(evaluators.Inputs(test={'embedding': np.float32(features)}))[name]


# RankMe


def test_rankme_is_the_published_formula():
  features = _rng().normal(size=(50, 8)) * np.logspace(0, -3, 8) + 2
  sigma = np.linalg.svd(features, compute_uv=False)
  p = sigma / np.abs(sigma).sum() + 1e-7
  expected = np.exp(-np.sum(p * np.log(p)))
  assert 1.1 < expected < 7
  assert _measure('rankme', features) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('dim', [1, 3, 8])
def test_rankme_of_isotropic_features_is_their_dimension(dim):
  features = _with_spectrum(np.full(dim, 3.0))
  assert _measure('rankme', features) == pytest.approx(dim, rel=1e-4)


def test_rankme_does_not_centre():
  same = np.ones((30, 5))
  assert _measure('rankme', same) == pytest.approx(1, abs=1e-4)
  assert _measure('rankme', 0 * same) == 0


def test_rankme_of_projections():
  inputs = evaluators.Inputs(
    test={'projection': np.float32(_with_spectrum(np.ones(4)))}
  )
  evaluator = evaluators.create('rankme', features='projection')
  assert evaluator.outputs == ('projection',)
  assert evaluator(inputs)['rankme'] == pytest.approx(4, rel=1e-4)


def test_smooth_rank_is_a_perplexity():
  spectrum = np.array([5.0, 2.0, 1.0, 0.5])
  expected = np.exp(stats.entropy(spectrum))
  assert rankme.smooth_rank(spectrum) == pytest.approx(expected, rel=1e-5)


# α-ReQ


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent_of_a_power_law(alpha):
  eigenvalues = 7.0 * np.arange(1, 41) ** -alpha
  features = _with_spectrum(np.sqrt(eigenvalues)) + 5
  found = _measure('alpha_req', features, ranks=(1, 40))
  assert found == pytest.approx(alpha, abs=1e-3)


def test_alpha_req_is_fitted_to_its_ranks_alone():
  eigenvalues = np.arange(1, 41) ** -1.5
  eigenvalues[:4] = 100.0
  eigenvalues[30:] = 1e-6
  found = _measure('alpha_req', _with_spectrum(np.sqrt(eigenvalues)), ranks=(5, 30))
  assert found == pytest.approx(1.5, abs=1e-3)


def test_alpha_req_is_the_line_of_scipy_on_random_features():
  features = _rng().normal(size=(80, 12)) * np.linspace(0.2, 2, 12)
  eigenvalues = np.linalg.eigvalsh(np.cov(features, rowvar=False))[::-1]
  line = stats.linregress(np.log(np.arange(3, 11)), np.log(eigenvalues[2:10]))
  found = _measure('alpha_req', features, ranks=(3, 10))
  assert found == pytest.approx(-line.slope, rel=1e-4)


def test_alpha_req_leaves_out_ranks_that_features_do_not_have():
  eigenvalues = np.arange(1, 11) ** -1.0
  features = np.pad(_with_spectrum(np.sqrt(eigenvalues)), ((0, 0), (0, 20)))
  assert _measure('alpha_req', features, ranks=(2, 30)) == pytest.approx(1, abs=1e-3)
  assert np.isnan(alpha_req.decay_exponent(features, (10, 30)))
  assert np.isnan(alpha_req.decay_exponent(np.ones((20, 5)), (1, 5)))


# LiDAR


def _images(num_images=12, num_views=6, dim=5, seed=0):
  rng = _rng(seed)
  scale = np.logspace(0.5, -1, dim)
  means = rng.normal(size=(num_images, 1, dim)) * scale
  noise = rng.normal(size=(num_images, num_views, dim)) * np.linspace(0.1, 1, dim)
  return means + noise + 3


def _lidar(views):
  evaluator = evaluators.create('lidar', num_images=len(views))
  inputs = evaluators.Inputs(views={'embedding': np.float32(views)})
  return evaluator(inputs)['lidar']


def test_lidar_is_the_published_formula():
  views = _images()
  n, q, d = views.shape
  mean = views.mean(axis=(0, 1))
  between, within = np.zeros((d, d)), np.zeros((d, d))
  for image in views:
    between += np.outer(image.mean(axis=0) - mean, image.mean(axis=0) - mean) / (n - 1)
    for view in image:
      residual = view - image.mean(axis=0)
      within += np.outer(residual, residual) / (n * (q - 1))
  root = linalg.fractional_matrix_power(within + 1e-4 * np.eye(d), -0.5)
  eigenvalues = np.linalg.eigvalsh(root @ between @ root)
  p = eigenvalues / eigenvalues.sum() + 1e-7
  expected = np.exp(-np.sum(p * np.log(p)))
  assert 1.1 < expected < 4.5
  assert _lidar(views) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(('num_images', 'dim'), [(6, 10), (40, 4)])
def test_lidar_of_images_that_are_perfectly_separated_is_the_rank(num_images, dim):
  """Views are all alike; images spread equally in every direction that they can."""
  rank = min(num_images - 1, dim)
  means = np.zeros((num_images, dim))
  means[:, :rank] = 100 * _orthonormal(num_images, rank)
  views = np.repeat(means[:, None, :], 3, axis=1)
  assert _lidar(views) == pytest.approx(rank, rel=1e-4)


def test_lidar_sees_only_directions_that_tell_images_apart():
  """RankMe sees the noise of the views as well."""
  views = np.zeros((40, 8, 6))
  views[..., :2] = 10 * _orthonormal(40, 2)[:, None, :]
  views[..., 2:] = _rng().normal(size=(40, 8, 4))
  views[..., 2:] -= views[..., 2:].mean(axis=1, keepdims=True)
  assert _lidar(views) == pytest.approx(2, rel=1e-3)
  assert _measure('rankme', views.reshape(-1, 6)) > 4


def test_lidar_does_not_change_under_rotation_and_large_scale():
  views = _images()
  rotation = np.linalg.qr(_rng(2).normal(size=(5, 5)))[0]
  assert _lidar(1e3 * views @ rotation) == pytest.approx(_lidar(1e3 * views), rel=1e-4)
  assert _lidar(1e3 * views) == pytest.approx(_lidar(views), rel=1e-2)


@pytest.mark.parametrize('value', [0.0, 0.1, 1e3])
def test_lidar_of_collapsed_features_is_zero(value):
  assert _lidar(np.full((10, 4, 6), value) * np.linspace(0.3, 1.7, 6)) == 0


def test_lidar_of_features_that_are_not_finite_is_nan():
  assert np.isnan(lidar.lda_rank(np.full((4, 3, 2), np.inf)))
