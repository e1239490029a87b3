"""The tables and configurations of a package of files, found by their names."""

import importlib
import pkgutil
import types
from typing import NamedTuple

import ml_collections

from sslhsic.tables import table as table_lib


class Catalogue(NamedTuple):
  """The tables PACKAGE.tables.NAME and configurations PACKAGE.FOLDER.NAME.

  A module of a table has `BASES`, names of scales, and `get_table(base)`, which gives
  what `table.parse` takes; a module of a configuration has `get_config()`.
  """

  package: str

  def names(self) -> list[str]:
    """The tables that there are; modules that they share have no `BASES`."""
    modules = pkgutil.iter_modules(self._module('tables').__path__)
    return sorted(
      x.name for x in modules if hasattr(self._module(f'tables.{x.name}'), 'BASES')
    )

  def bases_of(self, name: str) -> tuple[str, ...]:
    """The scales that there are of a table."""
    return self._module(f'tables.{name}').BASES

  def table(self, name: str | None, base: str) -> table_lib.Table:
    """A table at the scale of a base.

    Raises:
      ValueError: there is no such table, or not at this scale.
    """
    if name not in self.names():
      raise ValueError(f'unknown table {name!r}; use one of {", ".join(self.names())}')
    bases = self.bases_of(name)
    if base not in bases:
      raise ValueError(
        f'table {name} has no base {base!r}; use one of {", ".join(bases)}'
      )
    return table_lib.parse(name, base, self._module(f'tables.{name}').get_table(base))

  def config(self, name: str) -> ml_collections.ConfigDict:
    """The configuration FOLDER/NAME.

    Raises:
      ValueError: there is none.
    """
    module = name.replace('/', '.')
    try:
      return self._module(module).get_config()
    except ModuleNotFoundError as error:
      if error.name != f'{self.package}.{module}':
        raise
      raise ValueError(
        f'there is no {self.package}/{name}.py, a step of a table'
      ) from (error)

  def _module(self, name: str) -> types.ModuleType:
    return importlib.import_module(f'{self.package}.{name}')
