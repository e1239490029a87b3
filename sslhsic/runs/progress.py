"""The progress line of a training run, and its speed."""

import contextlib
import sys
import time

import tqdm

from sslhsic.runs import data_wait, processes
from sslhsic.runs.experiment import Experiment, Scalars


class Progress:
  """Shows step, loss, images per second, share of waiting for data, time left.

  Speed is that of training: `restart` leaves out what happens between steps.

  Args:
    experiment: what is trained.
    start_step: number of updates made before.
    waited: what waiting for data has cost.

  Attributes:
    warning: shown with it.
  """

  def __init__(
    self, experiment: Experiment, start_step: int, waited: data_wait.DataWait
  ):
    self._experiment, self._waited = experiment, waited
    self.warning = ''
    # A log file gets a line twice a minute, a terminal one line that changes.
    self._bar = tqdm.tqdm(
      total=experiment.num_steps,
      initial=start_step,
      unit='step',
      dynamic_ncols=True,
      mininterval=0.1 if sys.stderr.isatty() else 30,
      disable=not processes.is_first(),
    )
    self.restart()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception) -> None:
    with contextlib.suppress(OSError):  # The terminal may be gone.
      self._bar.close()

  def restart(self) -> None:
    """Begins a new interval for measuring speed."""
    self._interval_steps = 0
    self._interval_start = time.perf_counter()
    self._interval_wait_s = self._waited.seconds

  def advance(self) -> None:
    """Counts one step."""
    self._interval_steps += 1
    self._bar.update()

  def log(self, scalars: Scalars) -> dict[str, float]:
    """Shows the scalars of a finished step; returns the speed since the last call."""
    seconds = time.perf_counter() - self._interval_start
    images = self._interval_steps * self._experiment.batch_size
    wait_s = self._waited.seconds - self._interval_wait_s
    speed = {
      'images_per_second': images / seconds,
      'data_wait_share': min(wait_s / seconds, 1.0),
    }
    shown = [
      f'loss {scalars["loss"]:.4f}',
      f'{speed["images_per_second"]:,.0f} images/s',
      f'data wait {speed["data_wait_share"]:.0%}',
    ]
    self._bar.set_postfix_str(
      ', '.join([*shown, self.warning] if self.warning else shown),
      # In a log file, the text waits for the next line that is due.
      refresh=sys.stderr.isatty(),
    )
    self.restart()
    return speed
