"""Checkpoints: exact, the last few kept, mismatches refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic.training import checkpoint


def _arrays(value=0.0):
  return {
    'weights': {'w': jnp.full([3, 2], value + 0.1), 'none': None},
    'count': jnp.int32(7),
    'half': jnp.bfloat16([1.5, value]),
  }


def test_what_was_saved_is_restored_exactly(tmp_path):
  writer = checkpoint.Checkpointer(tmp_path / 'checkpoints')
  writer.save(checkpoint.Checkpoint(5, _arrays(1 / 3), {'input': {'next': 12}}))
  writer.close()
  reader = checkpoint.Checkpointer(tmp_path / 'checkpoints')
  restored = reader.restore_latest(_arrays())
  reader.close()
  assert restored.step == 5
  assert restored.host == {'input': {'next': 12}}
  expected = _arrays(1 / 3)
  np.testing.assert_array_equal(
    restored.arrays['weights']['w'], expected['weights']['w']
  )
  assert restored.arrays['weights']['none'] is None
  assert restored.arrays['count'] == 7
  np.testing.assert_array_equal(restored.arrays['half'], expected['half'])
  assert restored.arrays['half'].dtype == jnp.bfloat16


def test_the_last_ones_are_kept_and_the_latest_restored(tmp_path):
  checkpointer = checkpoint.Checkpointer(tmp_path, keep=2)
  for step in (1, 2, 3):
    checkpointer.save(checkpoint.Checkpoint(step, _arrays(step), {}))
  checkpointer.close()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['2', '3']
  reader = checkpoint.Checkpointer(tmp_path, keep=2)
  np.testing.assert_array_equal(
    reader.restore_latest(_arrays()).arrays['half'], jnp.bfloat16([1.5, 3])
  )
  reader.close()


def test_saving_a_step_again_changes_nothing(tmp_path):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  checkpointer.save(checkpoint.Checkpoint(1, _arrays(1), {}))
  checkpointer.save(checkpoint.Checkpoint(1, _arrays(2), {}))
  checkpointer.close()
  reader = checkpoint.Checkpointer(tmp_path)
  assert reader.restore_latest(_arrays()).arrays['half'][1] == 1
  reader.close()


def test_empty_directory_has_no_checkpoint(tmp_path):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  assert checkpointer.restore_latest(_arrays()) is None
  checkpointer.close()


def test_other_shapes_are_refused(tmp_path):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  checkpointer.save(checkpoint.Checkpoint(1, _arrays(), {}))
  checkpointer.close()
  other = _arrays() | {'half': jnp.bfloat16([1, 2, 3])}
  reader = checkpoint.Checkpointer(tmp_path)
  with pytest.raises(ValueError, match='half'):
    reader.restore_latest(other)
  reader.close()
