"""Metadata of images in a CSV file: a row for each image, a column for each field.

    file,colour,age
    train/3/0012.png,red,31.5

The column 'file' has paths, relative to the folder of the images. A column of numbers
with a decimal point or exponent in one of them is a quantity; others, whole numbers
too, are categories, numbered in the order of their names.
"""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from sslhsic.data.errors import printable

_FILE = 'file'  # The column with the paths.


class Table(NamedTuple):
  """A table of metadata.

  Attributes:
    path: of the CSV file.
    rows: {column: value} by path of the image, relative to the folder.
    columns: names of the fields, without 'file'.
  """

  path: str
  rows: Mapping[str, Mapping[str, str]]
  columns: tuple[str, ...]


def read(folder: str, name: str) -> Table:
  """Reads a table.

  Args:
    folder: of the images.
    name: of the CSV file, relative to the folder or absolute.

  Raises:
    ValueError: there is no such file, or it is no such table.
  """
  path = epath.Path(folder) / name
  if not path.is_file():
    raise ValueError(f'there is no file {path} of metadata')
  # The mark that Excel puts before UTF-8 is no part of a name.
  text = path.read_bytes().decode('utf-8-sig', 'surrogateescape')
  reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  try:
    rows, columns = list(reader), tuple(reader.fieldnames or ())
  except csv.Error as error:
    raise ValueError(f'{path}, line {reader.line_num}: {error}') from error
  if _FILE not in columns or len(set(columns)) < len(columns):
    raise ValueError(
      f'{path} has the columns {", ".join(map(printable, columns)) or "none"}; use '
      f'different names, and {_FILE!r} for the paths'
    )
  found = {}
  for number, row in enumerate(rows, 1):
    if None in row or None in row.values():
      raise ValueError(
        f'{path}: row {number} has {"more" if None in row else "fewer"} values than '
        f'the {len(columns)} columns'
      )
    file = os.path.normpath(row.pop(_FILE))
    if file in found:
      raise ValueError(f'{path} has two rows for {printable(file)}; remove one')
    found[file] = row
  return Table(os.fspath(path), found, tuple(x for x in columns if x != _FILE))


def column(table: Table, field: str, files: Sequence[str]) -> np.ndarray:
  """A field of images.

  Categories are numbered, and quantities told from them, by the whole table: alike for
  all splits.

  Args:
    table: the table.
    field: name of a column.
    files: paths of the images, relative to the folder.

  Returns:
    int32 [n], numbers of categories; or float32 [n, 1].

  Raises:
    ValueError: there is no such field, an image has no value, or a quantity is not
      finite.
  """
  if field not in table.columns:
    raise ValueError(
      f'{table.path} has no column {field!r}; use one of '
      f'{", ".join(map(printable, table.columns)) or "none"}'
    )
  for file in files:
    if not table.rows.get(os.path.normpath(file), {}).get(field, '').strip():
      raise ValueError(f'{table.path} has no {field} of {printable(file)}; add it')
  values = [table.rows[os.path.normpath(file)][field].strip() for file in files]
  everything = {row[field].strip() for row in table.rows.values()} - {''}
  has_fraction = any(re.search('[.eE]', value) for value in everything)
  if has_fraction and all(map(_is_number, everything)):
    _check_finite(table, field)
    return np.array(values, np.float32)[:, None]
  number = {name: place for place, name in enumerate(sorted(everything))}
  return np.array([number[value] for value in values], np.int32)


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _check_finite(table: Table, field: str) -> None:
  """Checks that float32 can hold every quantity of a column of numbers.

  Raises:
    ValueError: one is 'nan', infinite or too large.
  """
  largest = float(np.finfo(np.float32).max)
  for file, row in table.rows.items():
    text = row[field].strip()
    if text and not abs(float(text)) <= largest:
      raise ValueError(
        f'{table.path}: the {field} of {printable(file)} is {printable(text)}; give a '
        'finite number, or make all of this column words'
      )
