"""Layers in JAX and PyTorch: both compute the same, and both are measured."""

import numpy as np
import pytest

from benchmarks import layers

SMALL = layers.Layer(side=4, channels=3)


def test_every_operation_is_measured():
  found = layers.measure(SMALL, num_images=2, turns=1)
  assert set(found) == {*layers.CONVOLUTIONS, layers.BATCH_NORM}
  assert all(speeds['jax'] > 0 for speeds in found.values())


def test_frameworks_compute_the_same():
  pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  maps, gradient = rng.standard_normal((2, 2, 4, 4, 3), np.float32)
  kernel = rng.standard_normal((3, 3, 3, 3), np.float32)
  ours = layers._jax_calls(maps, gradient, kernel)
  theirs = layers._torch_calls(maps, gradient, kernel)
  nhwc = lambda tensor: tensor.detach().numpy().transpose(0, 2, 3, 1)
  expected = {
    'forward': nhwc(theirs['forward']()),
    'input gradient': nhwc(theirs['input gradient']()[0]),
    'weight gradient': theirs['weight gradient']()[1].numpy().transpose(2, 3, 1, 0),
    layers.BATCH_NORM: nhwc(theirs[layers.BATCH_NORM]()),
  }
  for operation, value in expected.items():
    found = ours[operation]()
    found = found[-1] if isinstance(found, tuple) else found
    np.testing.assert_allclose(found, value, atol=1e-4, err_msg=operation)


def test_row_without_pytorch():
  row = layers.row(layers.RESNET18[0], 'forward', {'jax': 200.0, 'torch': None})
  assert row == '| 32×32×64 | forward, GFLOP/s | 200 |  |  |'


def test_row_has_the_ratio():
  row = layers.row(layers.RESNET18[3], layers.BATCH_NORM, {'jax': 2.0, 'torch': 8.0})
  assert row == '| 4×4×512 | batch norm and ReLU, GB/s | 2 | 8 | 0.25 |'
