"""Checkpoints: exact, the last few kept, mismatches refused."""

import errno
import os
import shutil
import threading
import time

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sslhsic.runs import checkpoint


def _arrays(value=0.0):
  return {
    'weights': {'w': jnp.full([3, 2], value + 0.1), 'none': None},
    'count': jnp.int32(7),
    'half': jnp.bfloat16([1.5, value]),
  }


def _raise(error):
  raise error


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


def test_saving_waits_for_no_disk_and_keeps_what_was_there(tmp_path, monkeypatch):
  checkpointer = checkpoint.Checkpointer(tmp_path)
  write, has_room = checkpointer._write, threading.Event()
  monkeypatch.setattr(
    checkpointer, '_write', lambda saved: has_room.wait(60) and write(saved)
  )
  weights = np.ones(3)
  checkpointer.save(checkpoint.Checkpoint(1, {'w': weights}, {}))
  weights[:] = 2  # As the next step may do with its memory.
  assert not list(tmp_path.iterdir())
  has_room.set()
  checkpointer.wait()
  np.testing.assert_array_equal(checkpoint.read(tmp_path).arrays['w'], np.ones(3))
  checkpointer.close()


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


@pytest.fixture(scope='module')
def two_saved(tmp_path_factory):
  """A directory with the checkpoints of steps 1 and 2."""
  directory = tmp_path_factory.mktemp('two') / 'checkpoints'
  checkpointer = checkpoint.Checkpointer(directory, keep=2)
  for step in (1, 2):
    checkpointer.save(checkpoint.Checkpoint(step, _arrays(step), {'next': step}))
  checkpointer.close()
  return directory


@pytest.fixture
def two(two_saved, tmp_path):
  """A copy of them, to be damaged."""
  return shutil.copytree(two_saved, tmp_path / 'checkpoints')


def _restore(directory):
  reader = checkpoint.Checkpointer(directory, keep=2)
  try:
    return reader.restore_latest(_arrays())
  finally:
    reader.close()


def _files(directory):
  return sorted(path for path in directory.rglob('*') if path.is_file())


def _data(directory):
  """The file that holds the arrays: the largest."""
  return max(_files(directory), key=lambda path: path.stat().st_size)


def _flip(path, rng):
  content = bytearray(path.read_bytes())
  content[rng.integers(len(content))] ^= 1 << rng.integers(8)
  path.write_bytes(content)


DAMAGES = {
  'truncated': lambda path: os.truncate(path, path.stat().st_size // 2),
  'emptied': lambda path: os.truncate(path, 0),
  'missing': lambda path: path.unlink(),
  'overwritten': lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_checkpoint_is_named_and_kept_and_the_one_before_used(
  two, caplog, damage
):
  DAMAGES[damage](_data(two / '2'))
  left = _files(two / '2')
  restored = _restore(two)
  assert (restored.step, restored.host) == (1, {'next': 1})
  np.testing.assert_array_equal(restored.arrays['half'], _arrays(1)['half'])
  assert 'the checkpoint of step 2 is damaged' in caplog.text
  assert len(_files(two.parent / 'damaged' / '2')) == len(left)
  assert _restore(two).step == 1


def test_no_flipped_bit_goes_unnoticed_where_it_matters(two_saved, tmp_path):
  """Wherever it is: what is restored is what was saved, of this step or the one before.

  Damage to a digest counts as damage too.
  """
  rng = np.random.default_rng(0)
  used = []
  for number in range(12):
    directory = shutil.copytree(two_saved, tmp_path / str(number) / 'checkpoints')
    files = _files(directory / '2')
    _flip(files[number % len(files)] if number % 2 else _data(directory / '2'), rng)
    restored = _restore(directory)
    used.append(restored.step)
    assert restored.host == {'next': restored.step}
    np.testing.assert_array_equal(
      restored.arrays['weights']['w'], _arrays(restored.step)['weights']['w']
    )
  assert used.count(1) >= 4


def test_nothing_good_is_an_error_and_not_a_new_start(two):
  for step in (1, 2):
    DAMAGES['truncated'](_data(two / str(step)))
  for _ in range(2):  # It does not get better by being tried again.
    with pytest.raises(ValueError, match=r'no checkpoint in .* is good \(step 2: '):
      _restore(two)


def test_damaged_checkpoint_of_another_run_is_refused(two):
  DAMAGES['truncated'](_data(two / '2'))
  with pytest.raises(ValueError, match=r'2 is damaged: .*; use another one'):
    checkpoint.read(two)
  assert checkpoint.read(two, step=1).host == {'next': 1}


def test_failed_save_is_told_once_and_the_next_one_works(two, monkeypatch):
  full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def fail(manager, step, args):
    (two / f'{step}.orbax-checkpoint-tmp').mkdir()
    raise full

  checkpointer = checkpoint.Checkpointer(two, keep=2)
  with monkeypatch.context() as patch:
    patch.setattr(ocp.CheckpointManager, 'save', fail)
    checkpointer.save(checkpoint.Checkpoint(3, _arrays(3), {}))
    with pytest.raises(checkpoint.SaveError, match=r'step 3: .*No space left on dev'):
      checkpointer.wait()
    assert checkpointer.last_good() == 'the last good checkpoint is that of step 2'
  with monkeypatch.context() as patch:  # As a bucket that cannot be reached.
    patch.setattr(checkpoint, 'steps', lambda _: _raise(OSError('no answer')))
    assert (
      checkpointer.last_good() == 'the last good checkpoint is not known: no answer'
    )
  checkpointer.check()
  checkpointer.save(checkpoint.Checkpoint(4, _arrays(4), {}))
  checkpointer.close()
  assert sorted(path.name for path in two.iterdir()) == ['2', '4']


def test_what_a_killed_process_left_half_written_is_removed(two):
  shutil.copytree(two / '2', two / '3.orbax-checkpoint-tmp')
  assert _restore(two).step == 2
  for _ in range(100):  # Orbax does it in the background.
    if not (two / '3.orbax-checkpoint-tmp').exists():
      return
    time.sleep(0.1)
  pytest.fail('it is still there')
