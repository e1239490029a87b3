"""A TensorBoard profile of some steps, with JAX's profiler."""

import re

import jax

from sslhsic import storage
from sslhsic.runs import processes


class Profile:
  """Profiles the steps from START to before STOP, on the first process.

  Args:
    directory: where TensorBoard finds it.
    steps: 'START:STOP', or None for no profile.

  Raises:
    ValueError: these are no such steps.
  """

  def __init__(self, directory: storage.Path, steps: str | None):
    self._directory = directory
    # Steps count from 0, so that -1 never comes.
    self._start, self._stop = _parse(steps) if steps else (-1, -1)
    self._is_running = False

  def check(self, num_steps: int) -> None:
    """Refuses steps that a run does not take.

    Raises:
      ValueError: it ends before.
    """
    if self._start >= num_steps:
      raise ValueError(
        f'--profile starts at step {self._start}, but the run has {num_steps}, from 0; '
        'give steps of the run'
      )

  def before_step(self, step: int) -> None:
    """Starts before the first step."""
    if step == self._start and processes.is_first():
      self._mirror = storage.Mirror(self._directory)
      jax.profiler.start_trace(str(self._mirror.path))
      self._is_running = True

  def is_due(self, step: int) -> bool:
    """Whether it ends after this number of updates, once they are done."""
    return self._is_running and step == self._stop

  def close(self) -> None:
    """Writes it, if it is running."""
    if self._is_running:
      jax.profiler.stop_trace()
      self._mirror.close()
      self._is_running = False


def _parse(steps: str) -> tuple[int, int]:
  match = re.fullmatch(r'(\d+):(\d+)', steps)
  if not match or int(match[1]) >= int(match[2]):
    raise ValueError(
      f'--profile is {steps!r}, expected START:STOP, numbers of steps, such as 10:15'
    )
  return int(match[1]), int(match[2])
