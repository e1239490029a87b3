"""Jobs that are killed, fail or are stopped: nothing runs twice."""

import itertools
import json
import os
import signal
import sys
import threading
import time
from typing import NamedTuple

import pytest

from sslhsic.tables import catalogue, execution, jobs, render, results
from sslhsic.tables import table as table_lib

CATALOGUE = catalogue.Catalogue('configs')
TABLE = CATALOGUE.table('kernel', 'cifar10')


@pytest.fixture
def plans(tmp_path):
  return jobs.plan(TABLE, 2, tmp_path, CATALOGUE.config)


def _pretend(job):
  job.workdir.mkdir(parents=True)
  (job.workdir / 'config.json').write_text(job.config.to_json())
  values = {'linear_top1': 0.5, 'knn_top1': 0.5, 'few_label_top1': {'1': 0.5}}
  environment = {
    'device': '',
    'versions': {'jax': ''},
    'git_commit': '',
    'protocol': {},
  }
  text = json.dumps(values | environment | {'wall_time_s': 60.0})
  (job.workdir / 'results.json').write_text(text)


def test_runs_of_0_2_0_are_those_of_today(plans):
  job = plans['inverse multiquadric'][0]['pretrain']
  _pretend(job)
  path = job.workdir / 'config.json'
  config = json.loads(path.read_text())
  names = config['evaluation'].pop('representations')
  assert names == []
  for compares, is_the_same in ((False, True), (True, False)):
    config['evaluation']['compare_representations'] = compares
    path.write_text(json.dumps(config))
    if is_the_same:
      assert job.results()
    else:
      with pytest.raises(ValueError, match=r'evaluation.representations: \[\'pixels'):
        job.results()


def test_what_is_done_is_not_done_again(plans, tmp_path):
  done, count = [], itertools.count()

  def start(job):
    if next(count) == 7:
      raise KeyboardInterrupt
    done.append(job)
    _pretend(job)

  wanted = jobs.in_order(plans)
  assert len(jobs.commands(plans)) == 6
  with pytest.raises(KeyboardInterrupt):
    execution.run(wanted, start)
  assert len(jobs.commands(plans)) == 4
  assert execution.run(wanted, start) == []
  assert done == wanted
  assert len(wanted) == 18
  assert jobs.commands(plans) == []
  found = results.collect(TABLE, plans)
  text = render.write(tmp_path / 'tables', TABLE, found, 'command')
  assert '| Gaussian | 50.0 ± 0.0 |' in text
  assert (tmp_path / 'tables' / 'kernel-cifar10.md').read_text() == text


def test_what_another_process_has_done_meanwhile_is_not_done_again(plans):
  started, wanted = [], jobs.in_order(plans)

  def start(job):
    started.append(job)
    for each in wanted[:5]:
      if not each.workdir.exists():
        _pretend(each)
    if not job.workdir.exists():
      _pretend(job)

  assert execution.run(wanted, start) == []
  assert started == [wanted[0], *wanted[5:]]


def test_step_without_configuration_is_an_error():
  with pytest.raises(ValueError, match=r'no configs/pretrain/digit\.py, a step of a t'):
    CATALOGUE.config('pretrain/digit')


def test_what_needs_a_failed_job_is_left_out(plans):
  started = []

  def start(job):
    started.append(job)
    if 'gaussian' not in str(job.workdir):
      _pretend(job)

  failed = execution.run(jobs.in_order(plans), start)
  assert len(failed) == 6
  assert all('gaussian' in str(job.workdir) for job in failed)
  assert len(started) == 14


class Sleep(NamedTuple):
  """A job that writes a file when it is told to stop."""

  workdir: os.PathLike
  command: list[str]


def test_signal_goes_to_the_job_and_ends_the_program(tmp_path):
  code = (
    'import pathlib, signal, sys\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit(saved.touch()))\n'
    f'saved = pathlib.Path({str(tmp_path)!r}) / "saved"\n'
    f'saved.with_name("ready").touch()\n'
    'signal.pause()\n'
  )

  def send():
    while not (tmp_path / 'ready').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=send).start()
  job = Sleep(tmp_path, [sys.executable, '-c', code])
  with pytest.raises(execution.StoppedError, match='stopped by SIGTERM in'):
    execution.in_subprocess(job)
  assert (tmp_path / 'saved').exists()


def test_baselines_are_of_the_first_row_that_has_them(tmp_path):
  table = CATALOGUE.table('kernel', 'digits')
  plans = jobs.plan(table, 2, tmp_path, CATALOGUE.config)
  for row, plan in plans.items():
    for seed, of_seed in enumerate(plan):
      (job,) = of_seed.values()
      _pretend(job)
      path = job.workdir / 'results.json'
      shift = 0.1 * seed if row == 'Gaussian' else 0.3
      measured = {'linear_top1': 0.5 + shift, 'knn_top1': 0.6 + shift}
      is_first = row == next(iter(plans))
      names = ('trained',) if is_first else ('pixels', 'untrained', 'trained')
      of_names = dict.fromkeys(names, measured)
      few = {name: {'1': 0.2 + shift} for name in of_names}
      added = {'representations': of_names, 'few_label_top1': few}
      path.write_text(json.dumps(json.loads(path.read_text()) | added))
  found = results.collect(table, plans)
  assert found.values['pixels'] == {
    'linear top-1': [0.5, 0.6],
    'kNN top-1': [0.6, 0.7],
    '1 label per class': pytest.approx([0.2, 0.3]),
  }
  assert list(table.baselines) == ['pixels', 'untrained encoder']


def test_baseline_of_no_column_is_refused():
  with pytest.raises(ValueError, match='baselines of table name have columns x; use'):
    table_lib.parse(
      'name',
      'digits',
      {
        'steps': {},
        'columns': {},
        'rows': {},
        'published': {},
        'baselines': {'pixels': {'x': 'y'}},
      },
    )
