"""Services that a run logs to besides its own files: Weights & Biases, MLflow, yours.

A tracker is a class, made with a `Run`, with two methods:

    write(step, scalars)   logs the scalars of one step, {name: float}
    close()                ends the log, when the run ends or stops

`config.runner.writers` names it, 'wandb', 'mlflow' or 'package.module:Class'. Only the
first of several processes has one. A run that resumes continues the same log, from
`Run.start_step`: what was logged after that step is logged again. What a tracker raises
when it is made ends the run; later errors are warnings, for the run's own files have
everything.
"""

import importlib
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from absl import logging

from sslhsic import atomic, storage
from sslhsic.data.errors import one_line
from sslhsic.runs import workdir

# What the run itself writes, see `writers`.
OWN = ('jsonl', 'tensorboard')
_IDS = 'trackers.json'  # In the working directory: the id of the log, by tracker.
_MOST_PARAMS = 100  # That MLflow takes at once.


class Run(NamedTuple):
  """What a tracker is told of the run.

  Attributes:
    workdir: the working directory, on disk or in a bucket.
    start_step: the step that the run resumes from, or 0.
    config: the configuration, as in `config.json`.
  """

  workdir: storage.Path
  start_step: int
  config: dict[str, Any]

  def id_of(self, tracker: str, make: Callable[[], str]) -> tuple[str, bool]:
    """The id of this run's log, kept in the working directory; and if it is new."""
    path = self.workdir / _IDS
    found = json.loads(storage.read(path)) if storage.exists(path) else {}
    if tracker in found:
      return found[tracker], False
    found[tracker] = make()
    atomic.write(path, json.dumps(found, indent=2) + '\n')
    return found[tracker], True

  @property
  def name(self) -> str:
    """The last part of the working directory's path."""
    return self.workdir.name


class Tracker(Protocol):
  """The contract, see above."""

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step."""

  def close(self) -> None:
    """Ends the log."""


class Wandb:
  """Weights & Biases; its variables set project, entity and mode (WANDB_MODE=offline).

  It keeps the first values of a step that is logged twice.
  """

  def __init__(self, run: Run):
    """Begins the log, or continues it."""
    library = _library('wandb', 'wandb')
    identifier, _ = run.id_of('wandb', lambda: secrets.token_hex(4))
    self._run = library.init(
      id=identifier,
      name=run.name,
      resume='allow',
      config=run.config,
      # It makes a folder 'wandb' in there, and where the program runs without it.
      dir=None if storage.is_bucket(run.workdir) else os.fspath(run.workdir),
      settings=library.Settings(console='off', silent=True),
    )

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step."""
    self._run.log(scalars, step=step)

  def close(self) -> None:
    """Sends what is left."""
    self._run.finish()


class MLflow:
  """MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where."""

  def __init__(self, run: Run):
    """Begins the log, or continues it."""
    library = _library('mlflow', 'mlflow')
    self._entities = library.entities
    self._client = library.MlflowClient()
    self._id, is_new = run.id_of('mlflow', lambda: self._create(run.name))
    self._client.update_run(self._id, status='RUNNING')
    if is_new:
      params = [
        self._entities.Param(name, str(value))
        for name, value in workdir.flat(run.config).items()
      ]
      for first in range(0, len(params), _MOST_PARAMS):
        some = params[first : first + _MOST_PARAMS]
        self._client.log_batch(self._id, params=some)

  def _create(self, name: str) -> str:
    experiment = os.environ.get('MLFLOW_EXPERIMENT_NAME', 'sslhsic')
    found = self._client.get_experiment_by_name(experiment)
    number = (
      found.experiment_id if found else self._client.create_experiment(experiment)
    )
    return self._client.create_run(number, run_name=name).info.run_id

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step."""
    now = int(1000 * time.time())
    metrics = [
      self._entities.Metric(name, value, now, step) for name, value in scalars.items()
    ]
    self._client.log_batch(self._id, metrics=metrics)

  def close(self) -> None:
    """Marks the run as finished."""
    self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[Run], Tracker]] = {'wandb': Wandb, 'mlflow': MLflow}


class Trackers:
  """The trackers of a run, whose errors are warnings, one for each tracker.

  Args:
    names: of `config.runner.writers`.
    run: what they are told.

  Raises:
    ValueError: a name is unknown, its library is not installed, or its class cannot be
      made.
  """

  def __init__(self, names: Sequence[str], run: Run):
    if 'jsonl' not in names:
      raise ValueError(
        f"config.runner.writers is {tuple(names)}; name 'jsonl' too, which curves and "
        'reports are made from'
      )
    self._trackers: dict[str, Tracker] = {}
    self._failed: set[str] = set()
    for name in names:
      if name not in OWN:
        self._trackers[name] = _created(name, run)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of one step."""
    for name, tracker in self._trackers.items():
      self._try(name, lambda tracker=tracker: tracker.write(step, scalars))

  def close(self) -> None:
    """Ends all logs."""
    for name, tracker in self._trackers.items():
      self._try(name, tracker.close)

  def _try(self, name: str, action: Callable[[], None]) -> None:
    try:
      action()
    except Exception as error:  # Of a network or a service; types vary.
      if name not in self._failed:
        logging.warning('the writer %s fails: %s', name, one_line(error))
      self._failed.add(name)


def _created(name: str, run: Run) -> Tracker:
  if name in TRACKERS:
    make = TRACKERS[name]
  elif ':' in name:
    make = _imported(name)
  else:
    raise ValueError(
      f'unknown writer {name!r} in config.runner.writers; use '
      f"{', '.join((*OWN, *TRACKERS))} or 'package.module:Class'"
    )
  try:
    return make(run)
  except ValueError:
    raise
  except Exception as error:  # Of a service or a class of the user's.
    raise ValueError(
      f'the writer {name} of config.runner.writers cannot begin: {one_line(error)}'
    ) from error


def _imported(name: str) -> Callable[[Run], Tracker]:
  module, _, attribute = name.partition(':')
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(
      f'the writer {name!r} of config.runner.writers cannot be imported: {error}; use '
      "'package.module:Class' with a module on PYTHONPATH"
    ) from error


def _library(name: str, extra: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      f'the writer {name} of config.runner.writers is not installed ({error}); install '
      f"it with pip install '.[{extra}]'"
    ) from error
