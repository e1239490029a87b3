"""The loss benchmark: its baseline is the published estimator, and it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import loss
from sslhsic import fourier, hsic, kernels


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


def test_exact_values_in_blocks_are_those_of_the_exact_estimators():
  views, kernel = loss.unit_features(32, dim=8), kernels.InverseMultiquadric()
  zy, zz = loss._exact(views, kernel, block=16)
  np.testing.assert_allclose(zy, hsic.exact_hsic_zy(views, kernel), rtol=1e-4)
  np.testing.assert_allclose(zz, hsic.exact_hsic_zz(views, kernel), rtol=1e-3)


def test_gradient_noise_falls_with_the_number_of_features(monkeypatch):
  monkeypatch.setattr(loss, 'SAMPLERS', (('stratified', 16), ('stratified', 1024)))
  few, many = loss.gradient_noise(32, dim=8, draws=8).values()
  assert few / many == pytest.approx(8, rel=0.5)


def test_exchanged_bytes_are_the_results_of_collectives():
  def exchange(x):
    gathered = jax.lax.all_gather(x, 'i')
    return jax.lax.psum(gathered.sum(axis=0), 'i')

  x = jnp.ones([2, 3, 5])
  mapped = jax.pmap(exchange, axis_name='i', devices=jax.devices()[:2])
  program = mapped.lower(x).compile().as_text()
  assert loss.exchanged_bytes(program) == 4 * (2 * 3 * 5 + 3 * 5)


def test_everything_is_measured_and_shown(monkeypatch, tmp_path):
  names = (loss.BASELINE, 'ssl_hsic, 64 stratified')
  monkeypatch.setattr(loss, 'METHODS', {name: loss.METHODS[name] for name in names})
  monkeypatch.setattr(loss, 'DEVICE_COUNTS', (1, 2))
  measured = loss.measure(batch_sizes=(128, 256), dim=8, rounds=1, draws=2)
  costs = measured['cost_per_device']
  published, ours = ([costs[name][n]['flops'] for n in (1, 2)] for name in names)
  assert published[1] > 0.95 * published[0]
  assert ours[1] < 0.8 * ours[0]
  shown = loss.tables(measured)
  assert all(name in shown for name in names)
  loss.plot(measured, tmp_path / 'loss.png')
  assert (tmp_path / 'loss.png').read_bytes()[:4] == b'\x89PNG'
