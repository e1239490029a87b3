"""Tables: every one can be planned, a row of each runs, and nothing runs twice."""

import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time
from typing import NamedTuple

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from experiments import reproduce
from sslhsic import losses, parallel
from sslhsic.runs import measurement, runner
from sslhsic.tables import results
from tests.experiments.programs import MEASURED, TRAINED

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = [
  (name, base)
  for name in reproduce.names()
  for base in ('digits', 'cifar10', 'imagenette', 'imagenet', 'shapes')
  if base in reproduce.bases_of(name)
]


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_every_row_can_be_planned(name, base, tmp_path):
  table = reproduce.load(name, base)
  plans = reproduce.plan(table, 2, tmp_path)
  assert table.rows.keys() >= table.published.keys()
  directories = set()
  for row, (first, second) in plans.items():
    wanted = set(table.steps) - ({'pretrain'} if table.rows[row] == 'random' else set())
    assert first.keys() == second.keys() == wanted
    directories |= {str(job.workdir) for job in [*first.values(), *second.values()]}
    if 'pretrain' in first:
      loss = first['pretrain'].config.loss
      made = losses.create(loss.name, **loss.get(loss.name, {}))
      assert first['pretrain'].config.target_network or not made.needs_target
  assert len(directories) == sum(len(jobs) for plan in plans.values() for jobs in plan)


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_command_says_the_configuration(name, base, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  for _, jobs in reproduce.plan(reproduce.load(name, base), 2, tmp_path).values():
    for job in jobs.values():
      parsed, arguments = flags.FlagValues(), ['program', *job.command[3:]]
      config = config_flags.DEFINE_config_file(
        'config', flag_values=parsed, sys_argv=arguments
      )
      flags.DEFINE_string('workdir', None, '', flag_values=parsed)
      assert parsed(arguments) == ['program']
      assert config.value.to_json() == job.config.to_json()
      assert parsed.workdir == str(job.workdir)
      assert job.config.seed == 1


def test_unknown_tables_and_bases_are_refused():
  with pytest.raises(
    ValueError, match="unknown table 'kernels'; use one of batch_size"
  ):
    reproduce.load('kernels', 'digits')
  with pytest.raises(ValueError, match="no base 'digits'; use one of shapes, imagenet"):
    reproduce.load('depth', 'digits')


# A row of every table


def _tiny_digits(config, folder):
  # Embeddings of the size of 8×8 pixels, so that both are compared by one program.
  config.network.encoder_options = {'channels_per_group': (4, 64)}
  if folder == 'pretrain':
    config.network.head = {'hidden_size': 16, 'output_size': 16}
    config.data.train_split = 'train[:64]'
    config.training.update(batch_size=32, epochs=1, warmup_epochs=0)
    config.evaluation.update(train_split='train[:64]', test_split='test[:64]')
    config.evaluation.labels_per_class = (1,)
  if folder == 'linear_eval':
    config.training.update(batch_size=160, epochs=1)
  if folder == 'few_label':
    config.protocol.update(labels_per_class=(1,), num_draws=1)
  if 'training' in config and 'learning_rates' in config.training:
    # Equal in all, which compile the same program then.
    config.training.update(learning_rates=(0.1,), weight_decays=(0.0,), batch_size=10)
    config.training.update(epochs=(), steps=(1,), short_batch_norm=False)
  if 'l2' in config:
    config.l2 = (1e-4, 1.0, 2)
  config.evaluation.batch_size = 64


def _tiny_shapes(config, folder):
  options = {'blocks_per_group': (1, 1, 1, 1), 'channels_per_group': (4, 4, 4, 8)}
  config.network.encoder_options.update(options)
  if folder == 'pretrain':
    return
  config.data.train.split, config.data.test.split = 'train[:8]', 'test[:4]'
  config.training.update(steps=2, warmup_steps=0, batch_size=2)
  config.evaluation.batch_size = 4
  if folder == 'segmentation':
    config.network.channels = 4
  if folder == 'depth':
    config.network.channels = (4, 4)
  if folder == 'detection':
    config.network.update(pyramid_channels=8, box_size=8)


def _tiny(load_config):
  def load(name):
    config = load_config(name)
    folder, _, base = name.partition('/')
    (_tiny_shapes if base == 'shapes' else _tiny_digits)(config, folder)
    if name == 'pretrain/digits':  # Whose tables have evaluations that measure.
      config.evaluation.compare_representations = False
    config.get('runner', {}).update(log_every=1, evaluate_every=0, checkpoint_every=1)
    return config

  return load


def _start(job):
  """Does in this process what the command of a job does."""
  folder = job.config_name.partition('/')[0]
  if folder in MEASURED:
    measurement.run(MEASURED[folder], job.config, job.workdir)
  else:
    runner.Runner(TRAINED[folder], job.config, job.workdir, 'train_and_eval').run()


# The row of a table that is the configuration itself, so that tables share a run.
DIGITS = {
  'linear': 'SSL-HSIC, with target network',
  'semi_supervised': 'SSL-HSIC, with target network',
  'transfer_linear': 'SSL-HSIC, with target network',
  'transfer_finetune': 'SSL-HSIC, with target network',
  'regularizer': '√HSIC(Z,Z)',
  'kernel': 'inverse multiquadric',
  'batch_size': '32',
  'estimator': 'pairs, T = 8',
  'output_size': '16',
  'gamma': 'γ = 1',
  'target_ema': '0.9',
  'losses': 'SSL-HSIC, with target network',
}
SHAPES = dict.fromkeys(('segmentation', 'depth', 'detection'), 'random initial values')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tmp_path_factory.mktemp('tables')


@pytest.mark.parametrize('name', reproduce.names())
def test_a_row_of_every_table_runs(name, root, monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  monkeypatch.setattr(reproduce, 'load_config', _tiny(reproduce.load_config))
  base, row = ('digits', DIGITS[name]) if name in DIGITS else ('shapes', SHAPES[name])
  table = reproduce.load(name, base)
  table = table._replace(rows={row: table.rows[row]})
  plans = reproduce.plan(table, 1, root)
  assert reproduce.run(reproduce.all_jobs(plans), _start) == []
  reproduce.write(table, plans, root)
  values = results.collect(table, plans).values[row]
  assert all(len(values[column]) == 1 for column in table.columns)
  shown = json.loads((root / 'tables' / f'{name}-{base}.json').read_text())
  assert shown['rows'][0][0] == row
  assert '0 are missing' not in ''.join(shown['caption'])


# Killed, failed and stopped


@pytest.fixture
def plans(tmp_path):
  return reproduce.plan(reproduce.load('kernel', 'cifar10'), 2, tmp_path)


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


def test_what_is_done_is_not_done_again(plans, tmp_path):
  done, count = [], itertools.count()

  def start(job):
    if next(count) == 7:
      raise KeyboardInterrupt
    done.append(job)
    _pretend(job)

  wanted = reproduce.all_jobs(plans)
  assert len(reproduce.commands(plans)) == 6
  with pytest.raises(KeyboardInterrupt):
    reproduce.run(wanted, start)
  assert len(reproduce.commands(plans)) == 4
  assert reproduce.run(wanted, start) == []
  assert done == wanted
  assert len(wanted) == 18
  assert reproduce.commands(plans) == []
  table = reproduce.load('kernel', 'cifar10')
  assert '| Gaussian | 50.0 ± 0.0 |' in reproduce.write(table, plans, tmp_path)


def test_what_needs_a_failed_job_is_left_out(plans):
  started = []

  def start(job):
    started.append(job)
    if 'gaussian' not in str(job.workdir):
      _pretend(job)

  failed = reproduce.run(reproduce.all_jobs(plans), start)
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
  with pytest.raises(reproduce.StoppedError, match='stopped by SIGTERM in'):
    reproduce.in_subprocess(job)
  assert (tmp_path / 'saved').exists()
