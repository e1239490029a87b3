"""Names of sources that are a folder, with options: KIND:PATH?OPTION&OPTION."""

import os

from etils import epath


def folder_and_options(argument: str, usage: str) -> tuple[str, list[str]]:
  """Path and options of what follows the colon; a folder may have a '?' in its name.

  Args:
    argument: the path of a folder; and options after a '?', separated by '&'.
    usage: how to name such a source, for the message.

  Raises:
    ValueError: there is no such folder.
  """
  path, query = argument, ''
  if '?' in argument and not epath.Path(argument).expanduser().is_dir():
    path, _, query = argument.rpartition('?')
  root = epath.Path(path).expanduser()
  if not path or not root.is_dir():
    raise ValueError(f'there is no folder {path!r}; use {usage}')
  return os.fspath(root), [option for option in query.split('&') if option]
