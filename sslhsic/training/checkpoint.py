"""Checkpoints on disk, by Orbax: written whole or not at all, the last few kept."""

import pathlib
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoint(NamedTuple):
  """What was saved after `step` updates.

  Attributes:
    step: number of updates made.
    arrays: a tree of host arrays.
    host: JSON values, such as the state of the input.
  """

  step: int
  arrays: chex.ArrayTree
  host: dict[str, Any]


class Checkpointer:
  """Saves and restores checkpoints under one directory, in the background."""

  def __init__(self, directory: pathlib.Path, keep: int = 1):
    self._manager = ocp.CheckpointManager(
      directory.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  def save(self, checkpoint: Checkpoint) -> None:
    """Saves, unless this step is there already. The arrays may change afterwards."""
    if checkpoint.step in self._manager.all_steps():
      return
    arrays = jax.tree.map(np.array, checkpoint.arrays)
    self._manager.save(
      checkpoint.step,
      args=ocp.args.Composite(
        arrays=ocp.args.StandardSave(arrays), host=ocp.args.JsonSave(checkpoint.host)
      ),
    )

  def restore_latest(self, like: chex.ArrayTree) -> Checkpoint | None:
    """The latest checkpoint, or None if there is none.

    Args:
      like: a tree with the structure, shapes and types of the saved arrays.

    Raises:
      ValueError: the saved arrays are not like that.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        arrays=ocp.args.StandardRestore(jax.tree.map(np.asarray, like)),
        host=ocp.args.JsonRestore(),
      ),
    )
    _check_alike(restored.arrays, like, step)
    return Checkpoint(step, restored.arrays, restored.host)

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def read(directory: pathlib.Path, step: int | None = None) -> Checkpoint:
  """A checkpoint of another run, as nested dicts and lists of its arrays.

  Args:
    directory: of the checkpoints.
    step: which of them; by default the latest.

  Raises:
    ValueError: there is no such checkpoint.
  """
  if not directory.is_dir():
    raise ValueError(f'no checkpoints in {directory}; train there first')
  with ocp.CheckpointManager(directory.absolute()) as manager:
    steps = manager.all_steps()
    if not steps or step not in (None, *steps):
      there = ', '.join(map(str, sorted(steps))) or 'none'
      raise ValueError(
        f'no checkpoint{"" if step is None else f" of step {step}"} in {directory}; '
        f'there are: {there}'
      )
    step = max(steps) if step is None else step
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        arrays=ocp.args.StandardRestore(), host=ocp.args.JsonRestore()
      ),
    )
  return Checkpoint(step, restored.arrays, restored.host)


def _check_alike(found: chex.ArrayTree, wanted: chex.ArrayTree, step: int) -> None:
  """Orbax does not mind other shapes; training would."""
  leaves = zip(
    jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True
  )
  differing = [
    f'{jax.tree_util.keystr(path)} is {x.dtype}{x.shape}, expected {y.dtype}{y.shape}'
    for (path, x), y in leaves
    if (x.shape, x.dtype) != (y.shape, y.dtype)
  ]
  if differing:
    raise ValueError(
      f'the checkpoint of step {step} does not fit: {"; ".join(differing[:5])}; '
      'use the configuration that it was made with'
    )
