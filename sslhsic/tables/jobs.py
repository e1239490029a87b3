"""The jobs behind a table: programs with configurations, overrides and directories."""

import hashlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from sslhsic import storage
from sslhsic.runs import workdir
from sslhsic.tables import table as table_lib

LoadConfig = Callable[[str], ml_collections.ConfigDict]

# A program for what `test -e` does, in a bucket.
_EXISTS = (
  'import sys; from sslhsic import storage; sys.exit(not storage.exists(sys.argv[1]))'
)
_MAX_NAME = 200  # Characters; file systems take 255 bytes.


class Job(NamedTuple):
  """A run of a program.

  Attributes:
    config_name: FOLDER/NAME of its configuration; the folder is named as the program.
    workdir: its working directory.
    overrides: dotted field -> value, where it differs from the file.
    config: the configuration with the overrides.
    needs: the working directory of the job whose encoder it starts from, if any.
    flags: further flags of the program.
  """

  config_name: str
  workdir: storage.Path
  overrides: dict[str, Any]
  config: ml_collections.ConfigDict
  needs: storage.Path | None
  flags: tuple[str, ...] = ()

  @property
  def command(self) -> list[str]:
    """What runs it from the root of the repository."""
    program = self.config_name.partition('/')[0]
    return [
      sys.executable,
      '-m',
      f'experiments.{program}',
      f'--config=configs/{self.config_name}.py',
      f'--workdir={self.workdir}',
      *self.flags,
      *(f'--config.{field}={value}' for field, value in self.overrides.items()),
    ]

  def results(self) -> dict[str, Any] | None:
    """Its results.json; None if it is not done, or a part of it has failed.

    Raises:
      ValueError: they are of another configuration, or of an encoder that was trained
        again since.
    """
    path = self.workdir / 'results.json'
    if not storage.exists(path):
      return None
    config = ml_collections.ConfigDict(self.config)
    start = workdir.read_json(self.workdir / 'config.json').get('init_from')
    # A directory that was moved, or named otherwise, is the same run.
    if self.needs and start not in (None, table_lib.RANDOM):
      config.init_from = start
    workdir.check_results(self.workdir, config)
    results = workdir.read_results(self.workdir)
    if results and self.needs:
      self._check_encoder(results)
    return results or None

  def _check_encoder(self, results: dict[str, Any]) -> None:
    made = workdir.read_results(self.needs).get('trained_fingerprint')
    measured = results.get('encoder_fingerprint')
    # Runs of earlier versions do not say.
    if None not in (made, measured) and made != measured:
      raise ValueError(
        f'{self.workdir} has results of an earlier encoder: {self.needs} was trained '
        f'again since; remove {self.workdir}'
      )


# The jobs of each seed, by row.
Plans = Mapping[str, list[dict[str, Job]]]


def plan(
  table: table_lib.Table,
  num_seeds: int,
  root: storage.Path,
  load_config: LoadConfig,
) -> Plans:
  """The jobs of every row that has runs, for every seed; see `of_row`."""
  return {
    row: [of_row(table, row, seed, root, load_config) for seed in range(num_seeds)]
    for row, overrides in table.rows.items()
    if overrides is not None
  }


def of_row(
  table: table_lib.Table,
  row: str,
  seed: int,
  root: storage.Path,
  load_config: LoadConfig,
) -> dict[str, Job]:
  """The jobs of a row and a seed, by step; that which makes the encoder, if any, first.

  Rows that differ in nothing share their jobs, also those of different tables: the
  directories are named after what differs from the file of the pre-training.

  Args:
    table: the table.
    row: title of a row.
    seed: of all jobs.
    root: where their directories are.
    load_config: gives the configuration FOLDER/NAME.

  Raises:
    ValueError: a configuration has no such field.
  """
  overrides = table.rows[row]
  if overrides is None:
    return {}
  name = table.steps[table_lib.PRETRAIN]
  is_pretrained = not isinstance(overrides, str)
  # First without a seed: all seeds share a directory, named after the overrides.
  pretrain = _job(
    name, overrides if is_pretrained else {}, root, load_config(name), needs=None
  )
  if pretrain.overrides:
    # What the row itself says counts.
    changed = pretrain.overrides | {
      field: value
      for field, value in table.of_changed_rows.items()
      if field not in overrides
    }
    pretrain = _job(name, changed, root, load_config(name), needs=None)
  of_base = root / name.partition('/')[2]
  directory = of_base / (_slug(pretrain.overrides) if is_pretrained else overrides)
  # Loads the file anew, since `_job` changes the configuration that it is given.
  pretrain = _job(
    name,
    pretrain.overrides | {'seed': seed},
    directory / f'seed{seed}',
    load_config(name),
    needs=None,
  )
  evaluation = lambda step, directory, start: _evaluation(
    table.steps[step], pretrain, start, directory, load_config(table.steps[step])
  )
  jobs, start = {}, None
  if is_pretrained:
    jobs[table_lib.PRETRAIN] = start = pretrain
  elif overrides == table_lib.SUPERVISED:
    # It begins at random values, and is among the evaluations of these.
    random = of_base / table_lib.RANDOM / f'seed{seed}'
    jobs[table_lib.SUPERVISED] = start = evaluation(table_lib.SUPERVISED, random, None)
    if any(column.step == table_lib.PRETRAIN for column in table.columns.values()):
      measured = evaluation(table_lib.PRETRAIN, directory / f'seed{seed}', start)
      jobs[table_lib.PRETRAIN] = measured._replace(flags=('--mode=eval',))
  for step in table.steps:
    if step not in (table_lib.PRETRAIN, table_lib.SUPERVISED):
      jobs[step] = evaluation(step, directory / f'seed{seed}', start)
  return jobs


def _evaluation(
  name: str,
  pretrain: Job,
  start: Job | None,
  directory: storage.Path,
  config: ml_collections.ConfigDict,
) -> Job:
  """An evaluation of what a job has made, with network and images as in pre-training.

  It is of random values if there is no such job.
  """
  network, data = pretrain.config.network, pretrain.config.data
  overrides = {
    'init_from': str(start.workdir) if start else table_lib.RANDOM,
    'seed': pretrain.config.seed,
    'network.encoder': network.encoder,
    'data.mean': data.mean,
    'data.std': data.std,
  }
  for option, value in network.encoder_options.items():
    overrides[f'network.encoder_options.{option}'] = value
  return _job(name, overrides, directory, config, start and start.workdir)


def _job(
  name: str,
  overrides: Mapping[str, Any],
  directory: storage.Path,
  config: ml_collections.ConfigDict,
  needs: storage.Path | None,
) -> Job:
  differing = {}
  for field, value in overrides.items():
    if _get(config, field, name) != value:
      differing[field] = value
  config.update_from_flattened_dict(differing)
  return Job(name, directory / name.replace('/', '-'), differing, config, needs)


def _get(config: ml_collections.ConfigDict, field: str, name: str) -> Any:
  value = config
  for part in field.split('.'):
    if not isinstance(value, ml_collections.ConfigDict) or part not in value:
      raise ValueError(f'configs/{name}.py has no field {field}, which a row sets')
    value = value[part]
  return value


def _slug(overrides: Mapping[str, Any]) -> str:
  text = ','.join(f'{field}={value}' for field, value in overrides.items())
  plain = re.sub(
    r'[ \'"()]', '', text
  )  # Python's notation, in which values differ not.
  name = re.sub(r'[^\w.,=+-]', '', plain)[:_MAX_NAME]
  if name != plain:  # What is left out may be all that differs.
    name = f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'
  return name or 'default'


def in_order(plans: Plans) -> list[Job]:
  """Every job once, one after those that it needs."""
  steps = [jobs for seeds in plans.values() for jobs in seeds]
  # A dict keeps the first place of a key: shared jobs come once, as early as needed.
  return list({job.workdir: job for jobs in steps for job in jobs.values()}.values())


def commands(plans: Plans) -> list[str]:
  """Independent commands for what is missing, a line for each row and seed."""
  lines, seen = [], set()
  for seeds in plans.values():
    for jobs in seeds:
      missing = [x for x in jobs.values() if x.workdir not in seen and not x.results()]
      seen |= {job.workdir for job in missing}
      if missing:
        lines.append(chain(missing))
  return lines


def chain(jobs: list[Job]) -> str:
  """Jobs of one row and seed as one command, which ends where one is not done."""
  lines = []
  for job in jobs:
    command = shlex.join(job.command)
    # A program that a signal stops ends well too: only results show that it is done.
    results = job.workdir / 'results.json'
    test = ['test', '-e', str(results)]
    if storage.is_bucket(results):
      test = [sys.executable, '-c', _EXISTS, str(results)]
    # A line that is started again, as by Slurm, goes on where it was. Results that are
    # there already are not good, else the job would not be missing.
    if not storage.exists(results):
      command = f'{{ {shlex.join(test)} || {command}; }}'
    lines += [command, shlex.join(test)]
  return ' && '.join(lines[:-1])
