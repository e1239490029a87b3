"""Opens data sets that TFDS has prepared, without importing what their files name."""

import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import read_only_builder

from sslhsic.data.errors import one_line

# TFDS would look for a name with capitals elsewhere.
_NAME = re.compile(r'[a-z_][a-z0-9_]*(/[\w.-]+)*(:[\d.*]+)?')
# Names of features are classes in here, and nothing else is looked up by a name.
_FEATURES = f'{tfds.features.__name__}.'


def builder(name: str) -> tfds.core.DatasetBuilder:
  """The prepared data set of a name, or in the directory of a version.

  Raises:
    ValueError: it is not prepared, its metadata are damaged, or they name a class that
      is no feature of TFDS.
  """
  is_directory = name[:1] in ('/', '~', '.') or '://' in name
  if not is_directory and not _NAME.fullmatch(name):
    raise ValueError(
      f'tfds:{name} is no name of a data set; use tfds:NAME, tfds:NAME/CONFIG or the '
      'directory of a prepared version'
    )
  try:
    return _from_directory(name) if is_directory else _from_name(name)
  except _UnusableError as error:
    raise ValueError(str(error)) from error
  except Exception as error:  # TFDS and its parsers raise errors of many types.
    raise ValueError(
      f'tfds:{name} cannot be read: {type(error).__name__}: {one_line(error)}; prepare '
      'it anew, or remove it'
    ) from error


class _UnusableError(Exception):
  """The message says all."""


def _from_directory(name: str) -> tfds.core.DatasetBuilder:
  directory = epath.Path(name).expanduser()
  if not (directory / 'dataset_info.json').exists():
    raise _UnusableError(
      f'tfds:{name} holds no prepared data set; give the directory of a version, '
      'with dataset_info.json in it, or use tfds:NAME'
    )
  _check_features(directory / 'features.json')
  return tfds.builder_from_directory(directory)


def _from_name(name: str) -> tfds.core.DatasetBuilder:
  directory = epath.Path(data_dir()) / re.split('[/:]', name)[0]
  # NAME/VERSION and NAME/CONFIG/VERSION.
  for versions in ('*', '*/*'):
    for file in directory.glob(f'{versions}/features.json'):
      _check_features(file)
  try:
    return read_only_builder.builder_from_files(name, data_dir=data_dir())
  except tfds.core.DatasetNotFoundError as error:
    raise _UnusableError(
      f'tfds:{name} is not prepared in {data_dir()}; {how_to_prepare(name, data_dir())}'
    ) from error


def data_dir() -> str:
  """Where TFDS keeps what it prepares."""
  directory = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  return os.fspath(epath.Path(directory).expanduser())


def how_to_prepare(name: str, directory: str) -> str:
  """The command that prepares a data set."""
  # Not 'tfds build', which does not start without Apache Beam.
  return (
    'prepare it with: python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}', data_dir='{directory}', file_format='array_record')"
    '.download_and_prepare()" (for this alone TensorFlow is needed: pip install '
    'tensorflow importlib_resources)'
  )


def _check_features(file: epath.Path) -> None:
  """Checks that the features of a data set are TFDS's own.

  TFDS would import the module of any other, and so run code that lies about.

  Raises:
    _UnusableError: one is not.
  """
  if not file.exists():
    return
  for name in _classes(json.loads(file.read_text())):
    module = name.rpartition('.')[0]
    # A module that is imported already runs no code when it is looked up.
    if not name.startswith(_FEATURES) or module not in sys.modules:
      raise _UnusableError(
        f'{os.fspath(file)} names the class {name!r:.80}, which is no feature of TFDS, '
        'and is not imported; prepare the data set with features of TFDS'
      )


def _classes(content: Any) -> Iterator[str]:
  """All names of classes in a features.json, also in JSON inside of its strings."""
  if isinstance(content, list):
    for entry in content:
      yield from _classes(entry)
  elif isinstance(content, dict):
    for key, value in content.items():
      is_name = key in ('type', 'pythonClassName', 'python_class_name')
      if is_name and isinstance(value, str):
        yield value
      elif key == 'content' and isinstance(value, str) and value[:1] == '{':
        yield from _classes(json.loads(value))
      else:
        yield from _classes(value)
