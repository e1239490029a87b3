"""The comparison of frameworks, whose steps the other benchmarks test."""

import pytest

from benchmarks import versus


def test_row_has_medians_ranges_and_their_ratio():
  speeds = {'jax': [30.0, 10.0, 20.0], 'torch': [8.0, 16.0, 12.0]}
  assert versus.row('digits', speeds) == (
    '| `digits` | 20 (10 to 30) | 12 (8 to 16) | 1.67 |'
  )


def test_frameworks_take_turns(tmp_path):
  pytest.importorskip('torch')
  speeds = versus.compare('digits', batch_size=8, turns=2, seconds=0.1, folder=tmp_path)
  assert speeds.keys() == {'jax', 'torch'}
  assert all(len(found) == 2 and min(found) > 0 for found in speeds.values())
