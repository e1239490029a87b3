"""The benchmark of the training step: it runs, and what it counts is right."""

import haiku as hk
import jax
import jax.numpy as jnp

from benchmarks import step
from configs.pretrain import digits
from sslhsic import parallel


def test_flops_are_two_for_each_product():
  network = hk.transform_with_state(lambda x, is_training: hk.Linear(5)(x))
  images = jax.ShapeDtypeStruct((4, 3), jnp.float32)
  assert step._forward_flops(network, images) == 2 * 4 * 3 * 5 + 4 * 5  # And the bias.


def test_utilisation_is_the_share_of_a_known_peak():
  assert step.utilisation(156e12, 'bfloat16', 'NVIDIA A100-SXM4-80GB') == 0.5
  assert step.utilisation(156e12, 'float32', 'NVIDIA A100-SXM4-80GB') == 1.0
  assert step.utilisation(1e12, 'float32', 'cpu') is None


class _Tiny:
  """The configuration of the digits with a tiny network for made-up images."""

  @staticmethod
  def get_config():
    config = digits.get_config()
    config.data.crop_size = 8
    config.data.mean, config.data.std = (0.5,) * 3, (0.2,) * 3
    config.augment.views = ({'policy': 'none'},) * 2
    config.network.head = {'hidden_size': 8, 'output_size': 4}
    config.network.encoder_options = {
      'blocks_per_group': (1,),
      'channels_per_group': (4,),
    }
    return config


def test_everything_is_measured_and_shown(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  case = step.Case(_Tiny, (12, 16), batch_size=64, cpu_batch_size=8)
  monkeypatch.setattr(step, 'CASES', {'tiny': case})
  measured = step.measure(
    ('tiny',), ('byol',), ('bfloat16',), seconds=0.0, num_microbatches=2
  )
  (row,) = measured['rows']
  assert row['batch_size'] == 8
  assert row['images_per_second'] > 0
  assert row['compile_s'] > 0
  assert 0 <= row['data_wait_share'] <= 1
  assert row['device_bytes'] > 2 * 8 * 8 * 8 * 3  # At least both views.
  assert row['flops_per_image'] > 2 * 8 * (8 * 8 * 9 * 4 * 4)  # At least a convolution.
  shown = step.table(measured['rows'])
  assert 'tiny' in shown
  assert 'bfloat16' in shown
  assert step.comparison_table([{'in': 'torch', **row, 'is_compiled': False}]).endswith(
    '(torch.compile failed: not compiled)'
  )
