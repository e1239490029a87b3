"""The progress of a training run: a line that changes, its speed, and the time left."""

import contextlib
import sys
import time

import tqdm

from sslhsic.runs import data_wait, processes
from sslhsic.runs.experiment import Experiment, Scalars

# Step, loss, speed and time left; tqdm's own estimate would count the compilation.
_FORMAT = '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}'
# A log file gets lines, so often.
_SECONDS_BETWEEN_LINES = 30


class Progress:
  """Shows step, loss, images per second, share of waiting for data, time left.

  Speed is of training alone: `restart` leaves out what happens between steps. Time left
  also leaves out the first step, which compiles.

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
    self._step = start_step
    self._is_terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=experiment.num_steps,
      initial=start_step,
      bar_format=_FORMAT,
      dynamic_ncols=True,
      disable=not (self._is_terminal and processes.is_first()),
    )
    self._compile_s: float | None = None
    self._timed_steps, self._timed_s = 0, 0.0
    self._last_line = time.perf_counter()
    self.restart()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception: object) -> None:
    with contextlib.suppress(OSError):  # The terminal may be gone.
      self._bar.close()

  def restart(self) -> None:
    """Begins a new interval for measuring speed."""
    self._interval_steps = 0
    self._interval_start = time.perf_counter()
    self._interval_wait_s = self._waited.seconds

  def advance(self) -> None:
    """Counts one step."""
    self._step += 1
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
    self._measure(seconds)
    # A narrow terminal cuts the end off.
    shown = [
      f'loss {scalars["loss"]:.4f}',
      f'{duration(self._left_s)} left' if self._timed_steps else '',
      f'{speed["images_per_second"]:,.0f} images/s',
      f'data wait {speed["data_wait_share"]:.0%}',
      self.warning,
    ]
    self._show(', '.join(filter(None, shown)))
    self.restart()
    return speed

  def _measure(self, seconds: float) -> None:
    """Counts an interval, unless it is the first, which compiles."""
    if self._compile_s is None:
      self._compile_s = seconds
      return
    is_first = not self._timed_steps
    self._timed_steps += self._interval_steps
    self._timed_s += seconds
    if is_first and processes.is_first():
      tqdm.tqdm.write(
        f'compiled in {duration(self._compile_s)}; the training takes about '
        f'{duration(self._left_s)} more, without evaluations'
      )

  @property
  def _left_s(self) -> float:
    steps = self._experiment.num_steps - self._step
    return steps * self._timed_s / self._timed_steps

  def _show(self, text: str) -> None:
    if self._is_terminal:
      self._bar.set_postfix_str(text)
      return
    now = time.perf_counter()
    is_last = self._step == self._experiment.num_steps
    if processes.is_first() and (
      is_last or now - self._last_line >= _SECONDS_BETWEEN_LINES
    ):
      total = self._experiment.num_steps
      print(f'step {self._step:,} of {total:,}: {text}', file=sys.stderr, flush=True)
      self._last_line = now


def duration(seconds: float) -> str:
  """A length of time in words, as long as it needs to be: '40 s', '3 min', '2 h 5 min'.

  Args:
    seconds: not negative.
  """
  if seconds < 60:
    return f'{seconds:.0f} s'
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 24:
    return f'{hours} h {minutes} min'
  days, hours = divmod(round(seconds / 3600), 24)
  return f'{days} d {hours} h'
