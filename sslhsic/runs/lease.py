"""A lease on a directory in a bucket, where no file can be locked.

The leases of a directory are numbered objects, of which the greatest number counts; an
object is created only if it is not there yet, so that of several jobs one gets the next
number. Its holder renews it. One that is not renewed any more, since its holder was
killed, expires.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import NamedTuple

from absl import logging

from sslhsic import storage

# Seconds after which a lease that is not renewed is over, and renewals in them.
EXPIRY_S = 30
_RENEWALS = 5
# Clocks of two machines differ by less than as many times that: who comes so late need
# not wait.
_CLOCKS_DIFFER = 10

DIRECTORY = '.lease'


# Seconds that also pass while a machine is suspended, where it has such a clock.
_CLOCK = getattr(time, 'CLOCK_BOOTTIME', None)


def _now() -> float:
  return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class _Found(NamedTuple):
  """A lease as it was read; `time` is by its holder's clock."""

  number: int = 0
  holder: str = ''
  token: str = ''
  time: float = 0.0
  is_released: bool = True


class Lease:
  """A directory in a bucket, for this job alone until it is closed.

  Whatever is written there is checked to be so, see `storage.guard`.

  Args:
    directory: the directory.

  Raises:
    ValueError: another job has it, which is known after up to `EXPIRY_S` seconds.
    OSError: the bucket cannot be read or written.
  """

  def __init__(self, directory: storage.Path):
    self._directory = directory
    self._token = secrets.token_hex(8)
    self._holder = f'process {os.getpid()} on {socket.gethostname()}'
    self._lock = threading.Lock()
    self._lost = ''
    self._renewed = 0.0  # By `_now`.
    self._number = self._take()
    storage.guard(directory, self.check)
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._renew_often, daemon=True)
    self._thread.start()

  def _take(self) -> int:
    """Gets the next number, as soon as the lease before is over."""
    while True:
      found = _latest(self._directory)
      if found.token == self._token:  # An answer was lost, and the request repeated.
        number = found.number
        break
      if not found.is_released:
        _wait_for_end(self._directory, found)
      number = found.number + 1
      with contextlib.suppress(FileExistsError):  # Then another job was faster.
        self._put(number, is_new=True)
        break
    for name in storage.names(self._directory / DIRECTORY):
      if name < _name(number):
        storage.remove_file(self._directory / DIRECTORY / name)
    return number

  def _put(
    self, number: int, *, is_new: bool = False, is_released: bool = False
  ) -> None:
    # Before it is seen: another job, which waits from then on, must not be ahead.
    now = _now()
    content = _Found(number, self._holder, self._token, time.time(), is_released)
    path = self._directory / DIRECTORY / _name(number)
    storage.put(path, json.dumps(content._asdict()).encode(), is_new=is_new)
    self._renewed = now

  def _renew_often(self) -> None:
    while not self._closed.wait(EXPIRY_S / _RENEWALS):
      try:
        self._renew()
      except OSError as error:
        if self._lost:
          logging.error('%s', error)
          return
        logging.warning('the lease of %s is not renewed: %s', self._directory, error)

  def _renew(self) -> None:
    with self._lock:
      found = _latest(self._directory)
      if found.token != self._token:
        self._lost = (
          f'{self._directory} is not written any more: '
          f'{found.holder or "somebody"} has taken it over'
        )
        raise OSError(self._lost)
      self._put(self._number)

  def check(self) -> None:
    """Checks that the directory is still this job's.

    Raises:
      OSError: it is not, or the bucket does not tell.
    """
    if self._lost:
      raise OSError(self._lost)
    if _now() - self._renewed > EXPIRY_S:  # This process may have slept.
      self._renew()

  def close(self) -> None:
    """Gives the directory back."""
    self._closed.set()
    self._thread.join()
    storage.unguard(self._directory)
    if self._lost:
      return
    try:
      # The number stays: a job that has slept must not find its own the greatest.
      self._put(self._number, is_released=True)
    except OSError as error:
      logging.warning('the lease of %s is not released: %s', self._directory, error)


def _name(number: int) -> str:
  return f'{number:08}'  # In the order of the numbers.


def _latest(directory: storage.Path) -> _Found:
  while names := storage.names(directory / DIRECTORY):
    # Removed by the holder of the next one, if it is not there any more.
    with contextlib.suppress(FileNotFoundError):
      return _Found(**json.loads(storage.read(directory / DIRECTORY / max(names))))
  return _Found()


def _wait_for_end(directory: storage.Path, found: _Found) -> None:
  """Returns when a lease is over: released, or not renewed for `EXPIRY_S` seconds.

  Raises:
    ValueError: it is renewed.
  """
  if time.time() - found.time > _CLOCKS_DIFFER * EXPIRY_S:
    return
  # On one clock: the holder's may be fast or slow.
  start, is_told = _now(), False
  while _now() - start < EXPIRY_S:
    now = _latest(directory)
    if now.is_released:
      return
    if now != found:
      raise ValueError(
        f'{directory} is in use by {now.holder}; wait for it, stop it, or use another '
        '--workdir'
      )
    if not is_told:
      is_told = True
      print(f'{found.holder} has {directory}: waiting {EXPIRY_S} s for a sign of life')
    time.sleep(EXPIRY_S / _RENEWALS / 4)
