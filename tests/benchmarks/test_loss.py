"""The loss benchmark: its baseline is the published estimator, and it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import loss
from sslhsic import fourier


@pytest.mark.parametrize('case', range(4))
def test_baseline_is_the_published_estimator(golden_values, case):
  golden = lambda key: golden_values[f'case{case}/{key}']
  frequencies = golden('frequencies') / golden('scale')
  views = jnp.asarray(golden('views'))
  features = [
    fourier.RandomFeatures(jnp.float32(w), jnp.asarray(b))(views)
    for w, b in zip(frequencies, golden('phases'), strict=True)
  ]
  zy, zz = jax.jit(loss.published_hsic)(*features)
  np.testing.assert_allclose(zy, golden('hsic_zy'), rtol=1e-4)
  np.testing.assert_allclose(zz, golden('hsic_zz'), rtol=1e-4)


def test_features_have_the_inner_products_that_are_stated():
  views = loss.clustered_features(100)
  gram = np.einsum('pid,qjd->pqij', views, views)
  image = np.eye(100, dtype=bool)
  class_ = np.arange(100) % 10
  same_class = (class_[:, None] == class_[None]) & ~image
  off_diagonal = ~np.eye(4, dtype=bool)
  mean = lambda mask: gram[off_diagonal][:, mask].mean()
  np.testing.assert_allclose(mean(image), 0.87, atol=0.01)
  np.testing.assert_allclose(mean(same_class), 0.54, atol=0.01)
  np.testing.assert_allclose(mean(~same_class & ~image), 0, atol=0.02)


def test_gradient_noise_falls_with_features_and_with_partners(monkeypatch):
  estimators = {
    'few features': loss._of_features(16, 'stratified'),
    'many features': loss._of_features(1024, 'stratified'),
    'few partners': loss._of_pairs(1),
    'many partners': loss._of_pairs(16),
  }
  monkeypatch.setattr(loss, 'ESTIMATORS', estimators)
  for rows in loss.noise(32, dim=8, draws=8).values():
    error = {name: row['gradient_loss'] for name, row in rows.items()}
    assert error['few features'] / error['many features'] == pytest.approx(8, rel=0.5)
    # Half the batch is compared, so that little is left to chance.
    assert error['few partners'] / error['many partners'] > 4
    assert all(row['bias_hsic_zy'] < 2.5 for row in rows.values())


def test_flops_count_products_in_loops():
  def function(x):
    body = lambda carry, _: (jnp.matmul(carry, carry) + 1, None)
    return jax.lax.scan(body, x, length=5)[0]

  jaxpr = jax.make_jaxpr(jax.jit(function))(jnp.ones([4, 4])).jaxpr
  assert loss.flops(jaxpr) == 5 * (2 * 4**3 + 4**2)


def test_exchanged_bytes_are_the_results_of_collectives():
  def exchange(x):
    gathered = jax.lax.all_gather(x, 'i')
    return jax.lax.psum(gathered.sum(axis=0), 'i')

  x = jnp.ones([2, 3, 5])
  mapped = jax.pmap(exchange, axis_name='i', devices=jax.devices()[:2])
  program = mapped.lower(x).compile().as_text()
  assert loss.exchanged_bytes(program) == 4 * (2 * 3 * 5 + 3 * 5)


def test_everything_is_measured_and_shown(monkeypatch, tmp_path):
  names = (loss.BASELINE, 'ssl_hsic, pairs, T = 4', loss.EXACT)
  monkeypatch.setattr(loss, 'METHODS', {name: loss.METHODS[name] for name in names})
  estimators = ('64 stratified', 'pairs, T = 4')
  monkeypatch.setattr(
    loss, 'ESTIMATORS', {name: loss.ESTIMATORS[name] for name in estimators}
  )
  monkeypatch.setattr(loss, 'DEVICE_COUNTS', (1, 2))
  monkeypatch.setattr(loss, 'LARGEST_EXACT_BATCH', 128)
  measured = loss.measure(batch_sizes=(64, 128, 256), dim=8, rounds=1, draws={64: 2})
  costs = measured['cost_per_device']
  for name, fall in ((loss.BASELINE, 1), (names[1], 2), (loss.EXACT, 2)):
    one, two = (costs[name][count]['flops'] for count in (1, 2))
    assert one / two == pytest.approx(fall, rel=0.05), name
  # The mean feature, and a few numbers; and their gradients.
  assert costs[names[1]][2]['exchanged_bytes'] < 4 * (8 + 16) * 2
  shown = loss.tables(measured)
  assert all(name in shown for name in (*names, *estimators))
  loss.plot(measured, tmp_path / 'loss.png')
  assert (tmp_path / 'loss.png').read_bytes()[:4] == b'\x89PNG'
