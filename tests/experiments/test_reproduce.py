"""Tables: every one can be planned, a row of each runs, and nothing runs twice."""

import json
import pathlib

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from ml_collections import config_flags

from experiments import reproduce
from sslhsic import losses, parallel
from sslhsic.runs import measurement, runner
from sslhsic.tables import execution, jobs, render, results
from tests.experiments.programs import MEASURED, TRAINED

ROOT = pathlib.Path(__file__).resolve().parents[2]
CATALOGUE = reproduce.CATALOGUE
TABLES = [
  (name, base) for name in CATALOGUE.names() for base in CATALOGUE.bases_of(name)
]


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_every_row_can_be_planned(name, base, tmp_path):
  table = CATALOGUE.table(name, base)
  plans = jobs.plan(table, 2, tmp_path, CATALOGUE.config)
  assert table.rows.keys() >= table.published.keys()
  assert base == 'imagenet' or not table.published
  assert {row for row, x in table.rows.items() if x is None} <= table.published.keys()
  directories = set()
  for row, (first, second) in plans.items():
    made_by = table.rows[row] if isinstance(table.rows[row], str) else 'pretrain'
    wanted = set(table.steps) - {'pretrain', 'supervised'} | {made_by} - {'random'}
    if made_by == 'supervised':  # Whose numbers may be those of a pre-training.
      wanted |= {column.step for column in table.columns.values()}
    assert first.keys() == second.keys() == wanted
    directories |= {str(job.workdir) for job in [*first.values(), *second.values()]}
    if 'pretrain' in first:
      loss = first['pretrain'].config.loss
      made = losses.create(loss.name, **loss.get(loss.name, {}))
      assert first['pretrain'].config.target_network or not made.needs_target
  if table.baselines:
    configs = [plan['pretrain'].config for plan, _ in plans.values()]
    compared = [set(config.evaluation.representations) for config in configs]
    assert {'pixels', 'untrained', 'trained'} in compared
  steps = [steps for seeds in plans.values() for steps in seeds]
  assert len(directories) == sum(map(len, steps))


@pytest.mark.parametrize(('name', 'base'), TABLES)
def test_command_says_the_configuration(name, base, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  table = CATALOGUE.table(name, base)
  for _, second in jobs.plan(table, 2, tmp_path, CATALOGUE.config).values():
    for job in second.values():
      parsed, arguments = flags.FlagValues(), ['program', *job.command[3:]]
      config = config_flags.DEFINE_config_file(
        'config', flag_values=parsed, sys_argv=arguments
      )
      for flag in ('workdir', 'mode'):
        flags.DEFINE_string(flag, None, '', flag_values=parsed)
      assert parsed(arguments) == ['program']
      assert config.value.to_json() == job.config.to_json()
      assert parsed.workdir == str(job.workdir)
      is_measured = job.config_name.startswith('pretrain/') and job.needs
      assert parsed.mode == ('eval' if is_measured else None)
      assert job.config.seed == 1


def _command(root, **flags_given):
  given = {'table': 'kernel', 'base': 'digits', 'seeds': 1, 'workdir': str(root)}
  with flagsaver.flagsaver(**given | flags_given):
    reproduce.main(['reproduce'])


def test_jobs_are_listed_and_collected_and_failures_named(
  tmp_path, monkeypatch, capsys
):
  """The command itself: where a job fails, the table is written with a gap."""
  monkeypatch.chdir(ROOT)
  started = []
  monkeypatch.setattr(execution, 'in_subprocess', started.append)
  _command(tmp_path, dry_run=True, jobs=str(tmp_path / 'jobs'))
  lines = (tmp_path / 'jobs').read_text().splitlines()
  assert len(lines) == 3
  assert capsys.readouterr().out.splitlines() == [*lines, '3 commands']
  _command(tmp_path, collect=True)
  table = tmp_path / 'tables' / 'kernel-digits.md'
  assert '| inverse multiquadric |  |' in table.read_text()
  assert not started
  table.unlink()
  with pytest.raises(SystemExit):
    _command(tmp_path)
  assert len(started) == 3
  assert 'error: 3 jobs are not done' in capsys.readouterr().err
  assert table.exists()


# A row of every table


def _tiny_digits(config, folder):
  # Embeddings of the size of 8×8 pixels, so that both are compared by one program.
  config.network.encoder_options = {'channels_per_group': (4, 64)}
  if folder == 'pretrain':
    config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
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
      config.evaluation.representations = ()
    config.get('runner', {}).update(log_every=1, evaluate_every=0, checkpoint_every=0)
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
  'temperature': 'τ = 0.1',
}
SHAPES = dict.fromkeys(('segmentation', 'depth', 'detection'), 'random initial values')
# Planned only, as their data set need not be here.
FASHION_MNIST = {'learning_rate', 'loss_weight'}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tmp_path_factory.mktemp('tables')


@pytest.mark.parametrize('name', sorted({*CATALOGUE.names()} - FASHION_MNIST))
def test_a_row_of_every_table_runs(name, root, monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  base, row = ('digits', DIGITS[name]) if name in DIGITS else ('shapes', SHAPES[name])
  table = CATALOGUE.table(name, base)
  table = table._replace(rows={row: table.rows[row]})
  plans = jobs.plan(table, 1, root, _tiny(CATALOGUE.config))
  assert execution.run(jobs.in_order(plans), _start) == []
  found = results.collect(table, plans)
  render.write(root / 'tables', table, found, 'command')
  values = found.values[row]
  assert all(len(values[column]) == 1 for column in table.columns)
  shown = json.loads((root / 'tables' / f'{name}-{base}.json').read_text())
  assert [cells[0] for cells in shown['rows']] == [*table.baselines, row]
  assert '0 are missing' not in ''.join(shown['caption'])
  job = plans[row][0].get('pretrain')
  for other in plans[row][0].values():
    if other.needs:
      made = job.results()['trained_fingerprint']
      assert other.results()['encoder_fingerprint'] == made
  if table.baselines and not job.overrides:
    assert all(all(found.values[name].values()) for name in table.baselines)
