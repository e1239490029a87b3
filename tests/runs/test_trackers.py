"""Services that a run logs to, offline, and a class of the user's."""

import json
import sys
import time

import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic.runs import runner, trackers

CONFIG = {'seed': 3, 'optimizer': {'name': 'lars', 'decayed': ('w',)}}
STEPS = {1: {'loss': 0.5, 'knn_top1': 0.25}, 2: {'loss': 0.25}}


class Recorder:
  """A tracker as a user writes one."""

  made: list['Recorder'] = []  # noqa: RUF012

  def __init__(self, run):
    self.run, self.rows, self.is_closed = run, [], False
    self.made.append(self)

  def write(self, step, scalars):
    self.rows.append((step, scalars))
    if scalars.get('loss') == 0.5:
      raise ConnectionError('no\nanswer')

  def close(self):
    self.is_closed = True


class Broken:
  """One that cannot be made."""

  def __init__(self, run):
    raise OSError(f'no service for {run.name}')


RECORDER = f'{__name__}:Recorder'


def _log(names, workdir, start_step=0, steps=STEPS):
  logged = trackers.Trackers(
    ('jsonl', *names), trackers.Run(workdir, start_step, CONFIG)
  )
  for step, scalars in steps.items():
    logged.write(step, scalars)
  logged.close()


@pytest.fixture(autouse=True)
def _no_recorders(monkeypatch):
  monkeypatch.setattr(Recorder, 'made', [])


def test_own_class_gets_everything_and_its_errors_are_one_warning(tmp_path, caplog):
  with caplog.at_level('WARNING'):
    _log([RECORDER], tmp_path, steps={**STEPS, 3: {'loss': 0.5}})
  (recorder,) = Recorder.made
  assert recorder.rows == [*STEPS.items(), (3, {'loss': 0.5})]
  assert recorder.run == trackers.Run(tmp_path, 0, CONFIG)
  assert recorder.is_closed
  (record,) = caplog.records
  assert record.getMessage() == f'the writer {RECORDER} fails: no answer'


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (('tensorboard',), r"writers is \('tensorboard',\); name 'jsonl' too"),
    (('jsonl', 'comet'), "unknown writer 'comet' .* use jsonl, tensorboard, wandb, ml"),
    (('jsonl', 'no.module:X'), "'no.module:X' .* cannot be imported: No module"),
    (('jsonl', f'{__name__}:Nothing'), "cannot be imported: .* no attribute 'Nothing'"),
    (('jsonl', f'{__name__}:Broken'), 'Broken of .* cannot begin: no service for here'),
  ],
)
def test_mistakes_end_the_run_at_its_start(tmp_path, names, message):
  (tmp_path / 'here').mkdir()
  with pytest.raises(ValueError, match=message):
    trackers.Trackers(names, trackers.Run(tmp_path / 'here', 0, CONFIG))


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match=r"wandb of .* pip install '\.\[wandb\]'"):
    _log(['wandb'], tmp_path)


def test_mlflow_has_every_step_in_one_run(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'file:{tmp_path}/mlruns')
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  workdir = tmp_path / 'digits'
  workdir.mkdir()
  _log(['mlflow'], workdir)
  _log(['mlflow'], workdir, start_step=2, steps={3: {'loss': 0.125}})
  client = mlflow.MlflowClient()
  experiment = client.get_experiment_by_name('sslhsic')
  (found,) = client.search_runs([experiment.experiment_id])
  assert found.info.run_name == 'digits'
  assert found.info.status == 'FINISHED'
  assert found.data.params == {
    'seed': '3',
    'optimizer.name': 'lars',
    'optimizer.decayed': "('w',)",
  }
  history = client.get_metric_history(found.info.run_id, 'loss')
  assert [(x.step, x.value) for x in history] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_wandb_resumes_offline_under_one_id(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  _log(['wandb'], tmp_path)
  time.sleep(1.1)  # Directories are named by the second.
  _log(['wandb'], tmp_path, start_step=2, steps={3: {'loss': 0.125}})
  identifier = json.loads((tmp_path / 'trackers.json').read_text())['wandb']
  logs = sorted(tmp_path.glob('wandb/offline-run-*'))
  assert len(logs) == 2
  assert all(log.name.endswith(identifier) for log in logs)
  # Another process writes them, on a busy machine after `finish` has returned.
  for _ in range(60):
    logged = b''.join(file.read_bytes() for log in logs for file in log.glob('*.wandb'))
    if b'0.125' in logged:
      break
    time.sleep(1)
  assert b'knn_top1' in logged
  assert b'0.125' in logged


def test_run_logs_where_its_configuration_says(tmp_path):
  config = digits.get_config()
  config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
  config.training.update(batch_size=16, epochs=1, warmup_epochs=0)
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.data.train_split = 'train[:32]'
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.runner.update(log_every=1, writers=('jsonl', RECORDER))
  runner.Runner(pretrain.Pretrain, config, tmp_path, 'train').run()
  (recorder,) = Recorder.made
  lines = [json.loads(x) for x in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [{'step': step, **scalars} for step, scalars in recorder.rows] == lines
  assert recorder.run.config['seed'] == config.seed
  assert recorder.is_closed
  assert not (tmp_path / 'tensorboard').exists()
