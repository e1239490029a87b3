"""Logs: every scalar of every logged step, as JSON lines and for TensorBoard."""

import json
import os
import pathlib
from typing import Any

import tensorboardX


class MetricWriter:
  """Appends to `metrics.jsonl` and `tensorboard/` in a working directory.

  A run that goes on from an earlier step replaces what was logged after it.
  """

  def __init__(self, workdir: pathlib.Path, start_step: int):
    path = workdir / 'metrics.jsonl'
    kept = [row for row in read(workdir) if row['step'] <= start_step]
    write_atomically(path, ''.join(json.dumps(row) + '\n' for row in kept))
    self._lines = path.open('a', encoding='utf-8')
    self._tensorboard = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=start_step + 1
    )

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step."""
    self._lines.write(json.dumps({'step': step, **scalars}) + '\n')
    self._lines.flush()
    for name, value in scalars.items():
      self._tensorboard.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes both logs."""
    self._lines.close()
    self._tensorboard.close()


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`; none if there is no such file.

  A last line that was cut short when the job was killed is left out.
  """
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return []
  lines = path.read_text(encoding='utf-8').split('\n')
  return [json.loads(line) for line in lines[:-1]]


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all."""
  temporary = path.with_name(f'.{path.name}.tmp')
  with temporary.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)
