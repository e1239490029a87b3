"""Logs that survive a kill and a restart."""

import json

import pytest

from sslhsic import atomic
from sslhsic.runs import writers


def test_rows_are_read_back(tmp_path):
  writer = writers.MetricWriter(tmp_path, start_step=0)
  writer.write(1, {'loss': 0.5})
  writer.write(2, {'loss': 0.25, 'hsic_zy': 1.0})
  writer.close()
  assert writers.read(tmp_path) == [
    {'step': 1, 'loss': 0.5},
    {'step': 2, 'loss': 0.25, 'hsic_zy': 1.0},
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_what_is_not_finite_is_null(tmp_path):
  """Parsers of JSON other than Python's know no NaN."""
  first = writers.MetricWriter(tmp_path, start_step=0)
  first.write(1, {'loss': 0.5, 'alpha_req': float('nan'), 'rankme': float('inf')})
  first.close()
  writers.MetricWriter(tmp_path, start_step=1).close()
  (line,) = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert line == '{"step": 1, "loss": 0.5, "alpha_req": null, "rankme": null}'
  assert writers.read(tmp_path) == [{'step': 1, 'loss': 0.5}]


def test_restart_replaces_what_was_logged_after_its_checkpoint(tmp_path):
  first = writers.MetricWriter(tmp_path, start_step=0)
  for step in (1, 2, 3):
    first.write(step, {'loss': float(step)})
  first.close()
  second = writers.MetricWriter(tmp_path, start_step=2)
  second.write(3, {'loss': 30.0})
  second.close()
  assert [row['loss'] for row in writers.read(tmp_path)] == [1, 2, 30]


def test_line_cut_short_by_a_kill_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps({'step': 1, 'loss': 1.0}) + '\n{"step": 2, "lo')
  assert writers.read(tmp_path) == [{'step': 1, 'loss': 1.0}]
  writers.MetricWriter(tmp_path, start_step=1).close()
  assert path.read_text() == '{"step": 1, "loss": 1.0}\n'


def test_damaged_lines_are_named_and_left_out(tmp_path, caplog):
  lines = [b'{"step": 1, "loss": 1.0}', b'{"step": 2, "lo', b'\xff', b'[3]', b'{}']
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join([*lines, lines[0], b'']))
  assert [row['step'] for row in writers.read(tmp_path)] == [1, 1]
  assert (
    'metrics.jsonl: 4 of 6 lines are damaged and left out, the first is line 2'
    in (caplog.text)
  )


def test_file_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'results.json'
  atomic.write(path, 'first')
  atomic.write(path, 'second')
  assert path.read_text() == 'second'
  assert [file.name for file in tmp_path.iterdir()] == ['results.json']
  with pytest.raises(TypeError), atomic.opened(path) as file:
    file.write('text')  # Not bytes.
  assert path.read_text() == 'second'
  assert [file.name for file in tmp_path.iterdir()] == ['results.json']


def test_lines_wait_until_the_disk_has_room(tmp_path):
  class Full:
    """A file that takes ten more bytes."""

    def __init__(self, file):
      self.file, self.room = file, 10

    def write(self, data):
      if not self.room:
        raise OSError('No space left on device')
      count, self.room = self.file.write(data[: self.room]), 0
      return count

  writer = writers.MetricWriter(tmp_path, start_step=0)
  lines = writer._lines
  writer._lines = Full(lines)
  for step in (1, 2):
    with pytest.raises(OSError, match='No space'):
      writer.write(step, {'loss': 0.5})
  writer._lines = lines
  writer.write(3, {'loss': 0.5})
  writer.close()
  assert [row['step'] for row in writers.read(tmp_path)] == [1, 2, 3]


def test_event_file_that_cannot_be_written_is_begun_anew(tmp_path, monkeypatch):
  writer = writers.MetricWriter(tmp_path, start_step=0)
  full = OSError('No space left on device')
  with monkeypatch.context() as patch:
    patch.setattr(writer._events._writer, 'flush', lambda: _raise(full))
    with pytest.raises(OSError, match='No space'):
      writer.write(1, {'loss': 0.5})
  writer.write(2, {'loss': 0.25})
  writer.close()
  assert [row['step'] for row in writers.read(tmp_path)] == [1, 2]
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2


def _raise(error):
  raise error
