"""The README's examples run, and its commands exist."""

import pathlib
import re

import numpy as np
import pytest

from sslhsic.weights import files, layouts
from sslhsic.weights import settings as settings_lib

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


@pytest.fixture
def _trained(random_encoder, tmp_path, monkeypatch):
  """A directory with the encoder that examples load."""
  (tmp_path / 'runs' / 'digits').mkdir(parents=True)
  settings = settings_lib.Settings('resnet_digits', {}, 0, (0.3,), (0.4,), 'a run')
  files.write(
    tmp_path / 'runs' / 'digits' / files.WEIGHTS_NAME,
    layouts.to_tensors(layouts.HAIKU, *random_encoder('resnet_digits', channels=1)),
    settings,
  )
  monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures('_trained')
def test_python_examples_run():
  examples = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  results = []
  for example in examples:
    namespace = {}
    exec(example, namespace)
    results += [namespace[x] for x in ('value', 'embeddings') if x in namespace]
  assert len(results) == len(examples) > 1
  assert all(np.all(np.isfinite(result)) for result in results)


def test_make_targets_exist():
  makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
  for target in set(re.findall(r'^make (\w+)', README, re.MULTILINE)):
    assert f'\n{target}:' in makefile


def test_files_exist():
  paths = re.findall(
    r'--config=(configs\S+\.py)|\]\((docs/[^)#\s]+)[)#]|`(configs/\S+\.py)`', README
  )
  names = {name for match in paths for name in match if name}
  assert len(names) > 2
  for name in names:
    assert (ROOT / name).exists(), name
