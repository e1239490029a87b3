"""The notebook runs from top to bottom, and is kept without outputs."""

import json
import pathlib

import jax
import matplotlib.pyplot as plt
import pytest

from sslhsic import parallel

ROOT = pathlib.Path(__file__).resolve().parents[2]
CELLS = json.loads((ROOT / 'examples' / 'digits.ipynb').read_text(encoding='utf-8'))[
  'cells'
]
CODE = [''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'code']


def test_outputs_are_left_out():
  for cell in CELLS:
    assert not cell.get('outputs')
    assert cell.get('execution_count') is None


def test_notebook_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.syspath_prepend(str(ROOT))  # Restores what the notebook adds.
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  settings, *others = CODE
  names = {}
  exec(settings, names)
  assert names.keys() >= {'EPOCHS', 'WORKDIR'}
  names.update(EPOCHS=1, WORKDIR=str(tmp_path))
  for code in others:
    exec(code, names)
  plt.close('all')
  # As scikit-learn's nearest neighbours and ours classify pixels.
  assert names['scores']['pixels'] == pytest.approx(0.975, abs=0.02)
  assert 0.5 < names['scores']['encoder'] <= 1
  assert [row['step'] for row in names['logged']] == [1, 11]
