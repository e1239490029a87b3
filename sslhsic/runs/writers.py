"""Logs: every scalar of every logged step, as JSON lines and for TensorBoard."""

import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from sslhsic import atomic, storage
from sslhsic.runs import strict_json


class MetricWriter:
  """Appends to `metrics.jsonl` and `tensorboard/` in a working directory.

  A run that resumes from an earlier step replaces what was logged after it. When the
  disk is full, lines wait in memory until there is room. In a bucket, logs appear once
  a minute, and by `upload`.

  Args:
    workdir: the working directory.
    start_step: the step that the run resumes from, or 0.
    names: 'jsonl', and 'tensorboard' if its file is wanted.
  """

  def __init__(
    self,
    workdir: storage.Path,
    start_step: int,
    names: Sequence[str] = ('jsonl', 'tensorboard'),
  ):
    self._mirror = storage.Mirror(workdir)
    path = self._mirror.path / 'metrics.jsonl'
    # A new run has no earlier rows to keep.
    rows = _rows(workdir) if start_step else []
    kept = [row for row in rows if row['step'] <= start_step]
    atomic.write(path, ''.join(strict_json.dumps(row) + '\n' for row in kept))
    # Without a buffer: what was written and what was not is known at any moment.
    self._lines = path.open('ab', buffering=0)
    self._waiting = b''
    self._events = None
    if 'tensorboard' in names:
      first = start_step + 1 if start_step else 0
      self._events = _Events(self._mirror.path / 'tensorboard', first)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step.

    Raises:
      OSError: not all is on disk; the next call tries again.
    """
    self._waiting += (strict_json.dumps({'step': step, **scalars}) + '\n').encode()
    # Without a buffer, a write may take only some of the bytes; the rest waits.
    while self._waiting:
      self._waiting = self._waiting[self._lines.write(self._waiting) :]
    if self._events:
      self._events.write(step, scalars)

  def upload(self) -> None:
    """Copies what was logged to the bucket of the working directory, if it is in one.

    Raises:
      OSError: not all is there; the next call tries again.
    """
    self._mirror.upload()

  def close(self) -> None:
    """Closes both logs."""
    self._lines.close()
    if self._events:
      self._events.close()
    self._mirror.close()


class _Events:
  """TensorBoard's file, written at once.

  tensorboardX writes in a thread; a full disk ends that, and then it waits forever.
  """

  def __init__(self, directory: pathlib.Path, first_step: int):
    self._directory = directory
    self._count = 0
    self._writer = None
    directory.mkdir(exist_ok=True)
    # Tells TensorBoard to forget what an earlier process logged from here on.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(step=first_step, session_log=start)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    for name, value in scalars.items():
      self._add(step=step, summary=summary.scalar(name, value))
    self._flush()

  def _flush(self) -> None:
    try:
      self._writer.flush()
    except OSError:
      self._writer = None
      raise

  def _add(self, **event: Any) -> None:
    try:
      if self._writer is None:
        # A new file after an error, which may have cut off an event in the old one.
        self._count += 1
        self._writer = event_file_writer.EventsWriter(
          str(self._directory / 'events'), f'.{os.getpid()}.{self._count}'
        )
      self._writer.write_event(event_pb2.Event(wall_time=time.time(), **event))
    except OSError:
      self._writer = None
      raise

  def close(self) -> None:
    if self._writer:
      self._writer.close()


def read(workdir: storage.Path) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`; none if there is no such file.

  A last line that was cut short when the job was killed is left out. So are damaged
  lines, which the log names, and numbers that were not finite.
  """
  return [
    {name: value for name, value in row.items() if value is not None}
    for row in _rows(workdir)
  ]


def _rows(workdir: storage.Path) -> list[dict[str, Any]]:
  """The rows, with None for what was not finite."""
  path = workdir / 'metrics.jsonl'
  if not storage.exists(path):
    return []
  # Lines end in '\n': what follows the last one is empty, or cut short.
  lines = storage.read(path).decode(errors='replace').split('\n')[:-1]
  rows = [_row(line) for line in lines]
  damaged = [number for number, row in enumerate(rows, 1) if row is None]
  if damaged:
    logging.warning(
      '%s: %d of %d lines are damaged and left out, the first is line %d',
      path,
      len(damaged),
      len(lines),
      damaged[0],
    )
  return [row for row in rows if row is not None]


def _row(line: str) -> dict[str, Any] | None:
  try:
    row = json.loads(line)
  except ValueError:
    return None
  is_row = isinstance(row, dict) and isinstance(row.get('step'), int)
  return row if is_row else None
