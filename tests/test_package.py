"""The package as it is installed: only the library, and usable anywhere."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

BUILD = """
from setuptools import build_meta
print(build_meta.build_{kind}('dist'))
"""

# What takes long to import, and no loss needs.
HEAVY = ('tensorflow_datasets', 'matplotlib', 'grain', 'orbax', 'cv2', 'sklearn')


def _python(code, directory, **environment):
  run = subprocess.run(
    [sys.executable, '-c', code],
    cwd=directory,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  return run.stdout


def _build(kind, directory):
  """Builds from the sources in a directory, with the tools of this environment."""
  name = _python(BUILD.format(kind=kind), directory).splitlines()[-1]
  return directory / 'dist' / name


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """A wheel, made from a source distribution, made from a copy of the checkout."""
  # Older ones need another package to build wheels.
  pytest.importorskip('setuptools', minversion='70.1')
  path = tmp_path_factory.mktemp('package')
  copy = path / 'copy'
  caches = shutil.ignore_patterns('__pycache__')
  for name in ('configs', 'experiments', 'sslhsic', 'tests'):
    shutil.copytree(ROOT / name, copy / name, ignore=caches)
  for name in ('LICENSE', 'README.md', 'pyproject.toml', 'setup.py'):
    shutil.copy(ROOT / name, copy)
  shutil.unpack_archive(_build('sdist', copy), path)
  (sources,) = path.glob('sslhsic-*')
  return _build('wheel', sources)


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
  """A directory with what the wheel installs."""
  path = tmp_path_factory.mktemp('installed')
  shutil.unpack_archive(wheel, path, 'zip')
  return path


def test_only_the_library_is_installed(installed):
  names = {path.name for path in installed.iterdir()}
  assert {name for name in names if not name.endswith('.dist-info')} == {'sslhsic'}
  of_checkout = {path.relative_to(ROOT) for path in (ROOT / 'sslhsic').rglob('*.py')}
  assert {
    path.relative_to(installed) for path in (installed / 'sslhsic').rglob('*.py')
  } == of_checkout
  assert (installed / 'sslhsic' / 'py.typed').exists()


def test_examples_of_the_readme_run_outside_of_a_checkout(installed, tmp_path):
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  code = f"""
import sys
import sslhsic
assert 'jax' not in sys.modules
{example}
assert not set(sys.modules) & set({HEAVY})
print(sslhsic.__file__, float(value))
"""
  file, value = _python(code, tmp_path, PYTHONPATH=str(installed)).split()
  assert pathlib.Path(file).is_relative_to(installed)
  assert -1 < float(value) < 10


def test_package_says_how_programs_run(installed, tmp_path):
  run = [sys.executable, '-m', 'sslhsic']
  environment = os.environ | {'PYTHONPATH': str(installed)}
  said = subprocess.check_output(run, cwd=tmp_path, env=environment, text=True)
  command = re.search(r'python -m (experiments\.\w+) --config=(\S+)', said)
  assert (ROOT / f'{command[1].replace(".", "/")}.py').exists()
  assert (ROOT / command[2]).exists()


def test_package_is_found_next_to_a_folder_of_its_name(tmp_path):
  """Such as a checkout, seen from the folder that holds it."""
  (tmp_path / 'sslhsic' / 'docs').mkdir(parents=True)
  assert 'function load' in _python('import sslhsic; print(sslhsic.load)', tmp_path)
