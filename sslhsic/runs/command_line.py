"""The command line of every program: --config, --workdir, and mistakes in one line."""

import contextlib
import difflib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from sslhsic import storage
from sslhsic.runs import output, paths, processes

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

  # Only here: a program that has no configuration must not seem to read one.
  flag = config_flags.DEFINE_config_file('config', help_string='The configuration.')

  def with_config(argv):
    no_arguments(argv)
    config = flag.value
    if not isinstance(config, ml_collections.ConfigDict):
      _fail(_no_configuration(sys.argv))
    _check_folder(config_flags.get_config_filename(flags.FLAGS['config']))
    path = workdir()
    # After the flags are checked: a mistake shows before this process waits for others.
    with one_line_errors(ValueError):
      join_processes()
    with _memory_errors():
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


def _check_folder(file: str) -> None:
  """Refuses a configuration from the folder of another program."""
  main = sys.modules['__main__']
  if not main.__spec__:  # It was not run as a module.
    return
  package, _, program = main.__spec__.name.rpartition('.')
  folder = pathlib.Path(file).absolute().parent.name
  of_folder = pathlib.Path(main.__file__ or '').with_name(f'{folder}.py')
  if folder != program and of_folder.exists():
    _fail(
      f'{file} is a configuration of {package}.{folder}; give {package}.{program} one '
      f'of its own, from configs/{program}'
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
  """Ends the program with a line where a device has too little memory."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).partition('\n')[0]
    if 'RESOURCE_EXHAUSTED' not in reason:
      raise
    logging.debug('traceback', exc_info=True)
    _fail(
      f'{reason.rstrip(".")}; use a smaller config.evaluation.batch_size or '
      'config.training.batch_size, or more config.training.num_microbatches'
    )


def _parse_flags(argv):
  # Libraries tell more than a user wants to read, unless asked to.
  logging.set_verbosity(logging.WARNING)
  try:
    return flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    _fail(f'{error}{_meant(argv, error.flagname)}')
  except flags.Error as error:
    _fail(str(error))
  except OSError:
    _fail(_no_configuration(argv))
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    _fail(_wrong_field(argv) or ' '.join(str(error).split()))


def _wrong_field(argv: list[str]) -> str | None:
  """What to say of the first --config.FIELD that the configuration does not have.

  The messages of ml_collections differ from one kind of mistake to the next, and some
  name no field.
  """
  matches = (re.match(r'--?(?:no)?config\.([^=]+)', argument) for argument in argv)
  given = [match[1] for match in matches if match]
  fields = given
  with contextlib.suppress(Exception):  # The file itself may be what is wrong.
    fields = list(_fields(_of_file(argv)))
  for name in given:
    plain = name.partition('[')[0]  # Elements of sequences are not looked into.
    if plain not in fields:
      near = difflib.get_close_matches(plain, fields, n=3)
      last = plain.rpartition('.')[2]
      near += [x for x in fields if x.rpartition('.')[2] == last and x not in near][:3]
      guess = f'; did you mean {" or ".join(near)}?' if near else ''
      return f'the configuration has no field {name!r}{guess}'
  return None


def _meant(argv: list[str], flag: str) -> str:
  """What a flag was perhaps meant to be: a field of the configuration."""
  with contextlib.suppress(Exception):  # The file may be wrong too.
    fields = [x for x in _fields(_of_file(argv)) if x.rpartition('.')[2] == flag]
    if fields:
      return f'; did you mean {" or ".join(f"--config.{x}" for x in fields[:3])}?'
  return ''


def _file_flags(argv: list[str]) -> list[str]:
  """The arguments that name the file of the configuration, the last ones."""
  found = []
  for number, argument in enumerate(argv):
    if re.fullmatch(r'--?config', argument):
      found = argv[number : number + 2]
    elif re.match(r'--?config=', argument):
      found = [argument]
  return found


def _of_file(argv: list[str]) -> ml_collections.ConfigDict:
  """The configuration as its file gives it, without the overrides."""
  values, file = flags.FlagValues(), _file_flags(argv)
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=file)
  values([argv[0], *file])
  return values.config


def _no_configuration(argv: list[str]) -> str:
  """What to say where there is no configuration, or its file is not there."""
  given = _file_flags(argv)
  name = given[-1].partition('=')[2] if len(given) == 1 else ''.join(given[1:])
  file = pathlib.Path(name.partition(':')[0])
  if not name or file.is_file():
    return 'no configuration: give --config=FILE.py, an existing file'
  others = sorted(path.name for path in file.parent.glob('*.py'))
  near = difflib.get_close_matches(file.name, others, n=3)
  guess = f'; did you mean {" or ".join(near)}?' if near else ''
  where = '' if file.is_absolute() else f', seen from {pathlib.Path.cwd()}'
  return f'there is no file {file}{where}{guess}'


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
