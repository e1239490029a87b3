"""Examples of README and docs run; their commands, files and links exist."""

import pathlib
import re

import numpy as np
import pytest

from sslhsic.weights import files, layouts
from sslhsic.weights import settings as settings_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {
  path: path.read_text(encoding='utf-8')
  for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md'))
}
TEXT = '\n'.join(PAGES.values())


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
  pages = [
    ROOT / 'README.md',
    *(ROOT / 'docs' / f'{name}.md' for name in ('python', 'dependence')),
  ]
  text = '\n'.join(PAGES[page] for page in pages)
  examples = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  results = []
  for example in examples:
    namespace = {}
    exec(example, namespace)
    results += [namespace[x] for x in ('value', 'embeddings') if x in namespace]
  assert len(results) == len(examples) > 1
  assert all(np.all(np.isfinite(result)) for result in results)


def test_make_targets_exist():
  makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
  targets = set(re.findall(r'^make (\w+)', TEXT, re.MULTILINE))
  assert {'test', 'pretrain', 'docs'} <= targets
  for target in targets:
    assert f'\n{target}:' in makefile


def test_files_exist():
  paths = re.findall(r'--config=(configs\S+\.py)|`(configs/\S+\.py)`', TEXT)
  names = {name for match in paths for name in match if name}
  assert len(names) > 2
  for name in names:
    assert (ROOT / name).exists(), name


def _anchors(text):
  """The anchors that headings have on GitHub."""
  text = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  plain = (re.sub(r'[^\w\- ]', '', heading) for heading in headings)
  return {heading.strip().lower().replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\((?!https?:)([^)\s]+)\)', PAGES[page]):
    path, _, anchor = target.partition('#')
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), target
    if anchor:
      assert anchor in _anchors(PAGES[file]), target
