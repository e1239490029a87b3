"""The site builds without a warning."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {path.stem for path in (ROOT / 'docs').glob('*.md')}


def test_site_builds_without_warnings(tmp_path):
  pytest.importorskip('sphinx')
  # Every page, source file and heading that a page links to is looked up.
  command = [sys.executable, '-m', 'sphinx', '-W', '--quiet', 'docs', tmp_path]
  built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert built.returncode == 0, built.stderr
  assert {path.stem for path in tmp_path.glob('*.html')} >= PAGES
  api = (tmp_path / 'api.html').read_text(encoding='utf-8')
  assert 'sslhsic.load' in api
  assert 'id="sslhsic.losses.create"' in api
