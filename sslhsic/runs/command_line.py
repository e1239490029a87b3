"""The command line of every program: --config, --workdir, and mistakes in one line."""

import contextlib
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from sslhsic import storage
from sslhsic.runs import output, paths, processes

_CONFIG = config_flags.DEFINE_config_file('config', help_string='The configuration.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run keeps its files.')
_COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address',
  None,
  'HOST:PORT of the first of several processes; on a TPU pod, and by srun or mpirun, '
  'they find each other.',
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.')


def main(program: Callable[[ml_collections.ConfigDict, storage.Path], None]) -> None:
  """Runs a program with its configuration and working directory.

  A mistake in the command ends it with one line that says so, and exit code 1;
  `--verbosity=1` adds the traceback.
  """

  def with_config(argv):
    no_arguments(argv)
    config = _CONFIG.value
    if not isinstance(config, ml_collections.ConfigDict):
      _fail('no configuration: give --config=FILE.py, an existing file')
    path = workdir()
    # After the flags are checked: a mistake shows before this process waits for others.
    with one_line_errors(ValueError):
      join_processes()
    program(config, path)

  run(with_config)


def join_processes() -> None:
  """Joins the other processes of this job, if its flags or launcher say so.

  Raises:
    ValueError: the flags are wrong, or the others were not found.
  """
  processes.initialize(
    _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )


def run(program: Callable[[list[str]], None]) -> None:
  """Runs a program with what is left of its arguments, its own name first.

  For one that has no configuration; of `main`, it only reads the flags.
  """
  output.replace_what_cannot_be_shown()
  try:
    app.run(program, flags_parser=_parse_flags)
  finally:
    output.drop_if_broken()


def no_arguments(argv: list[str]) -> None:
  """Ends a program that was given arguments that are not flags."""
  if len(argv) > 1:
    _fail(f'unexpected arguments {argv[1:]}; every argument starts with --')


def workdir() -> storage.Path:
  """The directory of --workdir; without one, the program ends."""
  if not _WORKDIR.value:
    _fail('no working directory: give --workdir=DIR')
  with one_line_errors(ValueError):
    return paths.parse(_WORKDIR.value, '--workdir')


@contextmanager
def one_line_errors(*errors: type[Exception]) -> Iterator[None]:
  """Ends the program with the message of an error of these types, in one line."""
  try:
    yield
  except errors as error:
    logging.debug('traceback', exc_info=True)
    _fail(str(error))


def _parse_flags(argv):
  # Libraries tell more than a user wants to read, unless asked to.
  logging.set_verbosity(logging.WARNING)
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(str(error))
  except OSError:
    _fail('cannot read the configuration: give --config=FILE.py, an existing file')
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    _fail(_wrong_field(argv) or ' '.join(str(error).split()))


def _wrong_field(argv: list[str]) -> str | None:
  """What to say of the first --config.FIELD that the configuration does not have.

  The messages of ml_collections differ from one kind of mistake to the next, and some
  name no field.
  """
  given, files = [], []
  for number, argument in enumerate(argv):
    if match := re.match(r'--?(?:no)?config\.([^=]+)', argument):
      given.append(match[1])
    elif re.fullmatch(r'--?config', argument):
      files = argv[number : number + 2]
    elif re.match(r'--?config=', argument):
      files = [argument]
  # The configuration as its file gives it, without the overrides.
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=files)
  values([argv[0], *files])
  fields = list(_fields(values.config))
  for name in given:
    plain = name.partition('[')[0]  # Elements of sequences are not looked into.
    if plain not in fields:
      near = difflib.get_close_matches(plain, fields, n=3)
      last = plain.rpartition('.')[2]
      near += [x for x in fields if x.rpartition('.')[2] == last and x not in near][:3]
      guess = f'; did you mean {" or ".join(near)}?' if near else ''
      return f'the configuration has no field {name!r}{guess}'
  return None


def _fields(config: ml_collections.ConfigDict, prefix: str = '') -> Iterator[str]:
  """Every field, sections included."""
  for name, value in config.items():
    yield f'{prefix}{name}'
    if isinstance(value, ml_collections.ConfigDict):
      yield from _fields(value, f'{prefix}{name}.')


def _fail(message: str) -> None:
  with contextlib.suppress(OSError):  # Nobody may be there to read it.
    print(f'error: {message}', file=sys.stderr, flush=True)
  processes.leave(1)
