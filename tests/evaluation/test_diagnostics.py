import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sslhsic.evaluation import diagnostics


def embeddings(num_examples=200, dim=16):
  rng = np.random.default_rng(0)
  mixing = rng.normal(size=(dim, dim)) * np.logspace(0, -2, dim)[:, None]
  return rng.normal(size=(num_examples, dim)) @ mixing + 3


def test_feature_std_is_that_of_numpy():
  features = embeddings()
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  expected = directions.std(axis=0).mean() * 4
  np.testing.assert_allclose(diagnostics.feature_std(features), expected, rtol=1e-4)


def test_feature_std_by_hand():
  opposite = jnp.array([[5.0, 0.0], [-0.1, 0.0]])
  np.testing.assert_allclose(diagnostics.feature_std(opposite), np.sqrt(2) / 2)


def test_feature_std_is_one_for_directions_spread_evenly():
  features = np.random.default_rng(0).normal(size=(4000, 32))
  assert diagnostics.feature_std(features) == pytest.approx(1, abs=0.01)


def test_feature_std_is_zero_for_one_direction_of_any_length():
  lengths = np.linspace(0.1, 10, 50)[:, None]
  collapsed = lengths * np.random.default_rng(0).normal(size=(1, 8))
  assert diagnostics.feature_std(collapsed) == pytest.approx(0, abs=1e-6)


def test_feature_std_is_that_of_the_features_on_all_devices():
  features = jnp.float32(embeddings())
  std = jax.pmap(lambda x: diagnostics.feature_std(x, 'i'), axis_name='i')
  expected = jnp.full(8, diagnostics.feature_std(features))
  np.testing.assert_allclose(std(features.reshape(8, 25, -1)), expected, rtol=1e-5)


def test_effective_rank_is_the_perplexity_of_the_spectrum_of_numpy():
  features = embeddings()
  spectrum = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
  expected = np.exp(stats.entropy(spectrum / spectrum.sum()))
  assert 2 < expected < 12
  np.testing.assert_allclose(diagnostics.effective_rank(features), expected, rtol=1e-4)


@pytest.mark.parametrize('rank', [1, 2, 5])
def test_effective_rank_of_equal_singular_values_is_the_rank(rank):
  columns = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 7)))[0]
  columns = np.linalg.qr(columns - columns.mean(axis=0))[0]
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
  features = columns[:, :rank] @ rotation[:rank] + 1
  assert diagnostics.effective_rank(features) == pytest.approx(rank, rel=1e-4)


def test_effective_rank_of_fewer_examples_than_dimensions():
  features = np.eye(4, 100)
  assert diagnostics.effective_rank(features) == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize('value', [0.0, 0.1, 1e3])
def test_collapsed_features_have_no_spread_and_no_rank(value):
  collapsed = np.full((300, 24), value) * np.linspace(0.3, 1.7, 24)
  assert jax.jit(diagnostics.feature_std)(collapsed) == pytest.approx(0, abs=1e-6)
  assert diagnostics.effective_rank(collapsed) == 0
  assert diagnostics.feature_std_of_hosts(collapsed) == pytest.approx(0, abs=1e-6)


def test_rank_of_many_features_far_from_zero():
  """What counts as rounding does not grow with the number of features."""
  features = 1 + 0.05 * np.random.default_rng(0).normal(size=(50_000, 16))
  rank = diagnostics.effective_rank(features.astype(np.float32))
  assert rank == pytest.approx(16, rel=1e-3)
  noise = np.random.default_rng(1).uniform(-1, 1, size=features.shape)
  noise *= np.finfo(np.float32).eps / 2
  assert diagnostics.effective_rank(np.full((50_000, 16), 3.0) * (1 + noise)) == 0


def test_diagnostics_of_bfloat16_features():
  features = jnp.asarray(embeddings(), jnp.bfloat16)
  std = jax.jit(diagnostics.feature_std)(features)
  assert (std.shape, std.dtype) == ((), jnp.float32)
  for value, diagnostic in (
    (std, diagnostics.feature_std),
    (diagnostics.effective_rank(features), diagnostics.effective_rank),
  ):
    assert value == pytest.approx(float(diagnostic(embeddings())), rel=0.05)


def test_feature_std_of_hosts_is_that_of_one_device():
  features = embeddings()
  np.testing.assert_allclose(
    diagnostics.feature_std_of_hosts(features),
    diagnostics.feature_std(features),
    rtol=1e-5,
  )
