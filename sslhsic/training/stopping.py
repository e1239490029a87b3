"""Being asked to stop: by SIGTERM or SIGINT, or because one process has to."""

import signal
import threading
import time

import chex
import jax
import jax.numpy as jnp

from sslhsic import parallel

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
NO, FAILED = 0, 1000  # Signals have numbers between.

# Seconds in which several signals are one: `timeout`, shells and schedulers send it to
# the process and to its group.
_ONE_REQUEST_S = 1.0


class StopRequest:
  """Notes a signal; when another one comes later, it acts as if nobody listened.

  A context manager, to be used in the main thread; in others it hears no signals.

  Attributes:
    code: NO, the number of a signal, or FAILED.
  """

  def __init__(self):
    self.code = NO
    self._first = None
    self._handlers = {}
    self._largest = parallel.pmap(parallel.pmax, out_axes=None)
    self._unasked = None

  def __enter__(self) -> 'StopRequest':
    if threading.current_thread() is threading.main_thread():
      self._handlers = {x: signal.signal(x, self._note) for x in _SIGNALS}
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame) -> None:
    del frame
    now = time.monotonic()
    if self._first is None:
      self._first = now
    if now - self._first > _ONE_REQUEST_S:
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    self.code = max(self.code, number)

  def everywhere(self) -> int | chex.Array:
    """The largest `code` of all processes, perhaps still on its way from the devices.

    To wait for it would hold up every step; who looks at it a few steps later does so
    at the same step in all processes.
    """
    if jax.process_count() == 1:
      return self.code
    if self._unasked is None:
      self._unasked = parallel.replicate(jnp.int32(NO))
    if self.code == NO:
      return self._largest(self._unasked)
    return self._largest(parallel.replicate(jnp.int32(self.code)))


def name(code: int) -> str:
  """Of the signal, as in SIGTERM."""
  return signal.Signals(code).name
