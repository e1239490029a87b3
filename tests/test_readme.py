"""The README's examples run, and its commands exist."""

import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def test_python_examples_run():
  examples = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  assert examples
  for example in examples:
    namespace = {}
    exec(example, namespace)
    assert np.isfinite(namespace['value'])


def test_make_targets_exist():
  makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
  for target in set(re.findall(r'^make (\w+)', README, re.MULTILINE)):
    assert f'\n{target}:' in makefile


def test_files_exist():
  paths = re.findall(
    r'--config=(configs\S+\.py)|\]\((docs/\S+)\)|`(configs/\S+\.py)`', README
  )
  names = {name for match in paths for name in match if name}
  assert len(names) > 2
  for name in names:
    assert (ROOT / name).exists(), name
