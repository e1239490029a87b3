"""SIGReg and SFRIK against NumPy transcriptions of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sslhsic import losses

KEY = jax.random.key(1)


def _projections(num_views, num_targets, *, batch_size=12, dim=6):
  shape = [num_views + num_targets, batch_size, dim]
  x = jax.random.normal(jax.random.key(0), shape)
  # Views of an image have something in common, and the law is not the one that is
  # asked for.
  x = 0.5 * x + 0.8 * x[:1] + 0.3
  return losses.Projections(x[:num_views], x[num_views:] if num_targets else None)


def _value(name, projections, **settings):
  return jax.jit(losses.create(name, **settings))((), KEY, projections)


def _float64(projections):
  online, target = projections
  online = np.asarray(online, np.float64)
  return online, online if target is None else np.asarray(target, np.float64)


def _epps_pulley(x, knots, t_max):
  """Algorithm 1 of LeJEPA for a sample x [N] of one direction."""
  t = np.linspace(-t_max, t_max, knots)
  target = np.exp(-(t**2) / 2)
  empirical = np.exp(1j * x[:, None] * t[None, :]).mean(axis=0)
  error = np.abs(empirical - target) ** 2 * target
  return len(x) * np.trapezoid(error, t)


@pytest.mark.parametrize(('num_views', 'num_targets'), [(2, 0), (4, 0), (4, 2)])
@pytest.mark.parametrize('knots', [17, 6])
def test_sigreg_is_algorithms_1_and_2_of_the_paper(num_views, num_targets, knots):
  projections = _projections(num_views, num_targets)
  value, metrics = _value(
    'sigreg', projections, weight=0.3, num_slices=5, num_knots=knots, t_max=4.0
  )
  online, others = _float64(projections)
  centre = others[:2].mean(axis=0)
  prediction = np.mean([(z - centre) ** 2 for z in online])
  slices = np.asarray(jax.random.normal(KEY, [5, 6]), np.float64)
  slices /= np.linalg.norm(slices, axis=1, keepdims=True)
  sigreg = np.mean([[_epps_pulley(z @ a, knots, 4.0) for a in slices] for z in online])
  np.testing.assert_allclose(metrics['prediction'], prediction, rtol=1e-5)
  np.testing.assert_allclose(metrics['sigreg'], sigreg, rtol=1e-5)
  np.testing.assert_allclose(value, 0.7 * prediction + 0.3 * sigreg, rtol=1e-5)


def test_sigreg_of_one_dimension_is_the_statistic_of_epps_and_pulley():
  """All directions are ±1; the integral over the line is known (Henze, 1990)."""
  projections = _projections(2, 0, batch_size=40, dim=1)
  _, metrics = _value('sigreg', projections)
  expected = []
  for x in _float64(projections)[0][..., 0]:
    pairs = np.exp(-((x[:, None] - x[None, :]) ** 2) / 2).sum() / len(x)
    single = np.sqrt(2) * np.exp(-(x**2) / 4).sum()
    expected.append(np.sqrt(2 * np.pi) * (pairs - single + len(x) / np.sqrt(3)))
  np.testing.assert_allclose(metrics['sigreg'], np.mean(expected), rtol=1e-4)


def test_sigreg_with_more_global_views_than_views():
  with pytest.raises(ValueError, match='images have 2 views; use 2 or fewer'):
    _value('sigreg', _projections(2, 0), num_global_views=3)


@pytest.mark.parametrize(('num_views', 'num_targets'), [(2, 0), (4, 2)])
@pytest.mark.parametrize('dim', [2, 3, 6])
def test_sfrik_is_the_mmd_in_gegenbauer_polynomials(num_views, num_targets, dim):
  projections = jax.tree.map(
    losses.l2_normalize, _projections(num_views, num_targets, dim=dim)
  )
  weights = (1.0, 4.0, 2.0, 0.5)
  value, metrics = _value(
    'sfrik', projections, alignment_weight=3.0, kernel_weights=weights
  )
  online, others = _float64(projections)
  pairs = [(v, w) for v in range(num_views) for w in range(len(others)) if v != w]
  alignment = np.mean([np.sum((online[v] - others[w]) ** 2, 1) for v, w in pairs])

  def legendre(degree, t):
    if dim == 2:  # The limit of the quotient below.
      return special.eval_chebyt(degree, t)
    order = (dim - 2) / 2
    at = lambda t: special.eval_gegenbauer(degree, order, t)
    return at(t) / at(1.0)

  mmd = np.mean(
    [
      sum(b * legendre(degree, z @ z.T) for degree, b in enumerate(weights, 1))
      for z in online
    ]
  )
  np.testing.assert_allclose(metrics['alignment'], alignment, rtol=1e-5)
  np.testing.assert_allclose(metrics['mmd'], mmd, rtol=1e-5)
  np.testing.assert_allclose(value, 3 * alignment + mmd, rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    ('sigreg', {'weight': 1.5}, 'use a number from 0 to 1'),
    ('sigreg', {'num_knots': 2}, 'num_knots = 2; use 3 or more'),
    ('sigreg', {'t_max': 0.0}, 'use a positive number'),
    ('sfrik', {'kernel_weights': (1.0, -1.0)}, 'none of them negative'),
    ('sfrik', {'kernel_weights': ()}, 'use one or more numbers'),
  ],
)
def test_settings_that_cannot_be(name, settings, message):
  with pytest.raises(ValueError, match=message):
    losses.create(name, **settings)


def test_features_of_the_wrong_rank():
  for name in ('sigreg', 'sfrik'):
    with pytest.raises(AssertionError):
      losses.create(name)((), KEY, losses.Projections(jnp.zeros([4, 8])))
