"""Being asked to stop by SIGTERM or SIGINT, in one process or in several."""

import signal
import threading
import time

import jax
from jax.experimental import multihost_utils

# Seconds in which several signals are one: `timeout`, shells and schedulers send it to
# the process and to its group.
_ONE_REQUEST_S = 1.0


class StopRequest:
  """Notes a signal; when another one comes later, it acts as if nobody listened.

  A context manager, to be used in the main thread; in others it hears no signals.

  Of several processes, one that is asked to stop asks the others, and all stop after
  the same step. JAX sees to that, and listens to SIGTERM itself then.

  Attributes:
    signal: the one that was noted here, if one was.
  """

  def __init__(self):
    self.signal: signal.Signals | None = None
    self._first = None
    self._handlers = {}

  def __enter__(self) -> 'StopRequest':
    if threading.current_thread() is threading.main_thread():
      heard = [signal.SIGINT] if jax.process_count() > 1 else _SIGNALS
      self._handlers = {x: signal.signal(x, self._note) for x in heard}
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame) -> None:
    del frame
    now = time.monotonic()
    if self._first is None:
      self._first = now
      self.signal = signal.Signals(number)
      if jax.process_count() > 1:
        self.ask_all()
    elif now - self._first > _ONE_REQUEST_S:
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)

  def ask_all(self) -> None:
    """Asks all processes to stop, as a signal would."""
    signal.raise_signal(signal.SIGTERM)

  def is_reached(self, step: int) -> bool:
    """Whether to stop now, after so many steps; to be called after every one."""
    if jax.process_count() == 1:
      return self.signal is not None
    return multihost_utils.reached_preemption_sync_point(step)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
