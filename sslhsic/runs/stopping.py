"""Being asked to stop by SIGTERM, SIGINT or SIGHUP, in one process or in several."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

# Seconds in which several signals are one: `timeout`, shells and schedulers send it to
# the process and to its group.
_ONE_REQUEST_S = 1.0

# The terminal of a run that is over sends SIGHUP, which Windows does not know.
_SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGTERM', 'SIGINT', 'SIGHUP')
  if hasattr(signal, name)
)


class Stopped(BaseException):
  """A signal came where nothing needs to be finished; see `StopRequest.at_once`.

  Like KeyboardInterrupt no `Exception`: libraries catch those.
  """


class StopRequest:
  """Notes a signal; another one that comes later has its default effect.

  A context manager, to be used in the main thread; in others it hears no signals.

  Of several processes, one that is asked to stop asks the others, and all stop after
  the same step. JAX sees to that, and listens to SIGTERM itself then.

  Attributes:
    signal: the one that was noted here, if one was.
  """

  def __init__(self):
    self.signal: signal.Signals | None = None
    self._first = None
    self._raises = False
    self._handlers = {}

  def __enter__(self) -> 'StopRequest':
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        if jax.process_count() > 1 and number == signal.SIGTERM:
          continue
        # A run under nohup outlives its terminal.
        is_hangup = number not in (signal.SIGTERM, signal.SIGINT)
        if is_hangup and signal.getsignal(number) == signal.SIG_IGN:
          continue
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self._handlers = {}

  def _note(self, number: int, frame: object) -> None:
    del frame
    now = time.monotonic()
    if self._first is None:
      self._first = now
      self.signal = signal.Signals(number)
      if jax.process_count() > 1:
        self.ask_all()
      elif self._raises:
        raise Stopped  # Once: what then saves is not to be ended.
    elif now - self._first > _ONE_REQUEST_S:
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """A context in which a signal does not wait for the end of what is computed.

    Several processes finish it all the same: they can only stop together.

    Raises:
      Stopped: a signal comes, or has come before.
    """
    if jax.process_count() > 1:
      yield
      return
    # Contexts may be nested, as an evaluation is within a report.
    before, self._raises = self._raises, True
    try:
      if self.signal:
        raise Stopped
      yield
    finally:
      self._raises = before

  def ask_all(self) -> None:
    """Asks all processes to stop, as a signal would."""
    signal.raise_signal(signal.SIGTERM)

  def is_reached(self, step: int) -> bool:
    """Whether to stop now, after so many steps; to be called after every one."""
    if jax.process_count() == 1:
      return self.signal is not None
    return multihost_utils.reached_preemption_sync_point(step)
