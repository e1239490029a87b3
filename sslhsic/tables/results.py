"""What the runs behind a table have measured, gathered."""

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from sslhsic.tables import jobs as jobs_lib
from sslhsic.tables import table as table_lib


class Results(NamedTuple):
  """Values of a table, and how they came about.

  Attributes:
    values: row -> column -> a value for every seed that is done.
    num_seeds: how many seeds there are to be.
    protocols: column -> how it was measured; the first found.
    num_runs, num_missing: jobs that are done, and that are not.
    seconds: wall time of all runs together; those of shared rows count once.
    environments: devices, commits and versions of jax of the runs.
  """

  values: dict[str, dict[str, list[float]]]
  num_seeds: int
  protocols: dict[str, str]
  num_runs: int
  num_missing: int
  seconds: float
  environments: dict[str, list[str]]


def collect(table: table_lib.Table, plans: jobs_lib.Plans) -> Results:
  """Reads every results.json that there is.

  Args:
    table: the table.
    plans: see `jobs.plan`.

  Raises:
    ValueError: one lacks a metric of a column, or is of another configuration.
  """
  found = {job.workdir: job.results() for job in jobs_lib.in_order(plans)}
  done = [result for result in found.values() if result]
  values, protocols = {}, {}

  def read(row, plan, title, metric):
    read_ones = values.setdefault(row, {}).setdefault(title, [])
    for jobs in plan:
      job = jobs.get(table.columns[title].step)
      result = job and found[job.workdir]
      if result:
        read_ones.append(_value(result, metric, job))
        protocols.setdefault(title, _protocol(result, metric))

  for row, plan in plans.items():
    for title, column in table.columns.items():
      read(row, plan, title, column.metric)
  for row, metrics in table.baselines.items():
    for title, metric in metrics.items():
      step = table.columns[title].step
      read(row, _first_with(plans, found, step, metric), title, metric)
  return Results(
    values=values,
    num_seeds=max(map(len, plans.values())),
    protocols=protocols,
    num_runs=len(done),
    num_missing=len(found) - len(done),
    seconds=sum(result['wall_time_s'] for result in done),
    environments={
      'device': _distinct(result['device'] for result in done),
      'jax': _distinct(result['versions']['jax'] for result in done),
      'commit': _distinct(_short(result['git_commit']) for result in done),
    },
  )


def _first_with(
  plans: jobs_lib.Plans, found: dict, step: str, metric: str
) -> list[dict[str, jobs_lib.Job]]:
  """The jobs of the first row of which every run that is done has a metric."""
  for plan in plans.values():
    results = [found[jobs[step].workdir] for jobs in plan if step in jobs]
    done = [result for result in results if result]
    if done and all(_number(result, metric) is not None for result in done):
      return plan
  return []


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
  """Mean and sample standard deviation, which one value has not."""
  std = statistics.stdev(values) if len(values) > 1 else None
  return statistics.fmean(values), std


def _number(result: dict[str, Any], metric: str) -> float | None:
  value = result
  for part in metric.split('.'):
    value = value.get(part) if isinstance(value, dict) else None
  return float(value) if isinstance(value, int | float) else None


def _value(result: dict[str, Any], metric: str, job: jobs_lib.Job) -> float:
  value = _number(result, metric)
  if value is None:
    raise ValueError(
      f'{job.workdir / "results.json"} has no number {metric}; it has '
      f'{", ".join(result)}'
    )
  return value


def _protocol(result: dict[str, Any], metric: str) -> str:
  """How a metric was measured, as its run says; of a task of transfer, by its name."""
  protocol = result.get('protocol', {})
  name = metric.partition('.')[0]
  if name in protocol:
    return protocol[name]
  tasks = [x for x in protocol if name.startswith(f'{x}_')]
  # A task's name may begin another's: the longest that fits is meant.
  of_task = protocol[max(tasks, key=len)] if tasks else {}
  return ' '.join(of_task.values())


def _short(commit: str | None) -> str:
  """The start of a commit, marked if the code was not quite that."""
  start, mark, _ = (commit or 'unknown').partition('-dirty')
  return start[:10] + mark


def _distinct(values: Iterable[str]) -> list[str]:
  return sorted(set(values))
