"""What a training run shows while it runs."""

import os
import pty
import termios
import types

import pytest

from sslhsic.runs import progress


@pytest.fixture
def clock(monkeypatch):
  """A clock that only the test moves."""
  clock = types.SimpleNamespace(now=100.0)
  monkeypatch.setattr(progress.time, 'perf_counter', lambda: clock.now)
  return clock


def _run(clock, num_steps=901):
  """A first step of 40 s, then an interval of 20 steps of 0.1 s, of which 1 s waits."""
  experiment = types.SimpleNamespace(num_steps=num_steps, batch_size=64)
  waited = types.SimpleNamespace(seconds=0.0)
  with progress.Progress(experiment, 0, waited) as line:
    line.advance()
    clock.now += 40
    line.log({'loss': 2.0})
    for _ in range(20):
      line.advance()
    clock.now += 2
    waited.seconds = 1.0
    return line.log({'loss': 1.5})


def test_time_left_does_not_count_the_compilation(clock, capsys):
  speed = _run(clock)
  assert speed == {'images_per_second': 640.0, 'data_wait_share': 0.5}
  # 880 steps of 0.1 s are left.
  assert capsys.readouterr().out == (
    'compiled in 40 s; the training takes about 1 min more, without evaluations\n'
  )


def test_log_file_gets_lines(clock, capsys):
  _run(clock, num_steps=21)
  lines = capsys.readouterr().err.split('\n')
  # 40 s have passed before step 1, and the last step always has a line.
  assert lines == [
    'step 1 of 21: loss 2.0000, 2 images/s, data wait 0%',
    'step 21 of 21: loss 1.5000, 0 s left, 640 images/s, data wait 50%',
    '',
  ]


@pytest.mark.parametrize('columns', [20, 60, 200])
def test_line_fits_the_terminal_and_has_no_colour(clock, monkeypatch, columns):
  shown_at, terminal = pty.openpty()
  termios.tcsetwinsize(terminal, (24, columns))
  os.set_blocking(shown_at, False)
  with os.fdopen(terminal, 'w') as stream, os.fdopen(shown_at, 'rb') as shown:
    monkeypatch.setattr('sys.stderr', stream)
    _run(clock)
    stream.flush()
    text = shown.read().decode()
  assert max(map(len, text.replace('\n', '\r').split('\r'))) <= columns
  assert '\x1b' not in text
  assert '21/901 steps' in text or columns == 20
  assert ('loss 1.5000, 1 min left' in text) == (columns >= 60)
  assert ('640 images/s, data wait 50%' in text) == (columns == 200)


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    (0, '0 s'),
    (59.4, '59 s'),
    (90, '2 min'),
    (3_599, '1 h 0 min'),
    (7_500, '2 h 5 min'),
    (1e5, '1 d 4 h'),
  ],
)
def test_duration_in_words(seconds, words):
  assert progress.duration(seconds) == words
