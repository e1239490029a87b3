"""The benchmark of memory: it finds the unknowns of a small step, without computing."""

import jax
import pytest

from benchmarks import full_size, memory, step
from configs.finetune import digits_1pct
from sslhsic import parallel


def _case():
  config = digits_1pct.get_config()
  config.init_from = 'random'
  config.network.encoder = 'vit_digits'
  config.network.encoder_options = {'width': 64, 'depth': 1, 'num_heads': 1}
  config.training.update(batch_size=256, epochs=(), steps=(100,))
  return memory.Case(config, part=64, num_examples=0)


@pytest.fixture(scope='module')
def row():
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(parallel, 'devices', lambda: jax.devices()[:1])
    yield memory.measure('finetune/digits_1pct', _case())


def test_memory_of_another_batch_is_foretold(row):
  with full_size.shapes_only():
    lowered = memory._lower('finetune/digits_1pct', _case().config, 512, 4)
  found = step.device_bytes(lowered.compile())
  row = row | {'batch_size': 512}
  assert memory.step_bytes(row, 4) == pytest.approx(found, rel=0.05)
  assert memory.step_bytes(row, 1) > 2 * found


def test_unknowns_are_those_of_the_network(row):
  # Weights of the block, momenta and gradients; then activations.
  assert row['fixed_bytes'] > 3 * 4 * 12 * 64**2
  assert row['in_part_bytes'] > 4 * 16 * 64 * 10
  assert 0 <= row['kept_bytes'] < 0.1 * row['in_part_bytes']
  # Three passes; a product of 12·64² weights for each of 16 tokens.
  assert row['flops'] > 256 * 3 * 2 * 16 * 12 * 64**2


def test_number_of_microbatches_is_the_smallest_that_fits():
  row = {'batch_size': 24, 'fixed_bytes': 10, 'kept_bytes': 1, 'in_part_bytes': 5}
  row['alone_bytes'] = 7
  assert memory.fitting(row, 10 + 7 * 24) == 1
  assert memory.fitting(row, 10 + 7 * 24 - 1) == 2
  assert memory.fitting(row, 10 + 24 + 5 * 5) == 6
  assert memory.fitting(row, 10 + 24 + 4) is None


def test_rows_are_kept_and_shown(row, tmp_path):
  shown = row | {'name': 'depth/nyu', 'precisions': ['bfloat16', 'float32']}
  memory.write([shown], tmp_path)
  memory.write([shown | {'name': 'segmentation/voc'}], tmp_path)
  text = (tmp_path / 'memory.md').read_text(encoding='utf-8')
  assert text.index('`segmentation/voc`') < text.index('`depth/nyu`')
  hours = memory.hours(shown, 'float32')
  assert memory.hours(shown, 'bfloat16') == pytest.approx(hours / 2)
