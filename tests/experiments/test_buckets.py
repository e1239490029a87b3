"""Runs in buckets: emulators of Google's and Amazon's, with their real clients."""

import io
import logging
import pickle
import re
import shlex
import signal
import socket
import sys
import tempfile
import time

import jax
import numpy as np
import pytest
from absl import flags
from etils import epath
from gcp_storage_emulator import server as gcs_emulator
from ml_collections import config_flags
from moto import server as s3_emulator

import sslhsic
from benchmarks import tiny_runs
from configs.pretrain import digits
from experiments import pretrain, reproduce
from sslhsic import atomic, parallel, storage
from sslhsic.data import sources
from sslhsic.evaluation import embed
from sslhsic.report import build, collect
from sslhsic.runs import (
  checkpoint,
  lease,
  paths,
  profiling,
  runner,
  workdir,
  writers,
)
from sslhsic.tables import execution, jobs, render, results
from sslhsic.weights import from_run, pretrained

LAST = checkpoint._LAST


def _free_port():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


@pytest.fixture(scope='module', autouse=True)
def emulators():
  """Both, in threads of this process, with a bucket `bucket` each."""
  for name in ('werkzeug', 'gcp_storage_emulator'):
    logging.getLogger(name).setLevel('CRITICAL')
  port = _free_port()
  google = gcs_emulator.create_server(
    '127.0.0.1', port, in_memory=True, default_bucket='bucket'
  )
  amazon = s3_emulator.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  google.start()
  amazon.start()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{port}')
    # Else the client looks for zonal buckets, with credentials.
    patch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    patch.setenv('AWS_ENDPOINT_URL', 'http://{}:{}'.format(*amazon.get_host_and_port()))
    patch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
      patch.setenv(name, 'none')
    patch.setattr(lease, 'EXPIRY_S', 1)
    storage.client('s3://').mkdir('bucket')
    yield
  google.stop()
  amazon.stop()


@pytest.fixture(params=['gs', 's3'])
def bucket(request, tmp_path):
  """A directory in each, with a name that could be a pattern."""
  return epath.Path(f'{request.param}://bucket/{tmp_path.name}/run[1] #a')


@pytest.fixture
def s3(tmp_path):
  """A directory where two cannot create the same object."""
  return epath.Path(f's3://bucket/{tmp_path.name}')


# Files and directories


def test_files_are_found_read_and_written(bucket):
  assert not storage.exists(bucket)
  assert storage.names(bucket) == storage.find(bucket, '*') == []
  atomic.write(bucket / 'a' / 'b.json', 'ä')
  atomic.write(bucket / 'a' / 'b.json', 'ö')
  atomic.write(bucket / 'ab.json', '{}')
  with pytest.raises(TypeError), atomic.opened(bucket / 'ab.json') as file:
    file.write('text')  # Not bytes.
  assert storage.read(bucket / 'a' / 'b.json').decode() == 'ö'
  assert storage.read(bucket / 'ab.json') == b'{}'
  assert sorted(storage.names(bucket)) == ['a', 'ab.json']
  assert storage.find(bucket, 'a/*.json') == [bucket / 'a' / 'b.json']
  assert storage.find(bucket / 'a', '*.json') == [bucket / 'a' / 'b.json']
  assert storage.is_directory(bucket / 'a')
  assert storage.is_file(bucket / 'ab.json')
  with storage.local(bucket / 'ab.json') as local:
    assert (local.name, local.read_text()) == ('ab.json', '{}')
  with pytest.raises(FileNotFoundError):
    storage.read(bucket / 'none')


def test_output_is_tried_at_once(bucket):
  assert paths.output_file(f'{bucket}/report.html', '--output').parent == bucket
  assert not storage.exists(bucket)
  atomic.write(bucket / 'a' / 'file', '')
  with pytest.raises(ValueError, match='not empty; use another --out'):
    paths.output_directory(bucket / 'a', '--out')
  with pytest.raises(ValueError, match='a directory; give a file in it'):
    paths.output_file(bucket, '--output')
  nowhere = f'{str(bucket)[:5]}no-such-bucket/a/report.html'
  with pytest.raises(OSError, match=r'--output: nothing can be written into .*no-such'):
    paths.output_file(nowhere, '--output')


def test_missing_client_names_what_installs_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gcsfs', None)
  storage._client.cache_clear()
  with pytest.raises(ValueError, match=r"gs:// needs gcsfs.*pip install '.\[gcs\]'"):
    paths.parse('gs://bucket/run', '--workdir')
  storage._client.cache_clear()


# Leases


def _config():
  return digits.get_config()


def test_second_job_is_refused_until_the_first_lets_go(bucket):
  first = workdir.claim(bucket, _config())
  with pytest.raises(ValueError, match=r'#a is in use by process \d+ on \S+; wait'):
    workdir.claim(bucket, _config())
  first.close()
  start = time.monotonic()
  workdir.claim(bucket, _config()).close()
  assert time.monotonic() - start < lease.EXPIRY_S


def test_lease_of_a_killed_job_is_taken_over_when_it_has_expired(s3, monkeypatch):
  killed = lease.Lease(s3)
  killed._closed.set()  # It renews no more.
  start = time.monotonic()
  held = lease.Lease(s3)
  assert time.monotonic() - start >= lease.EXPIRY_S
  # One that had only slept must not write any more.
  with pytest.raises(OSError, match=r'not written any more: process \d+ on \S+ has ta'):
    killed.check()
  held.check()
  now = time.time()
  monkeypatch.setattr(time, 'time', lambda: now + 1000)
  held._closed.set()
  monkeypatch.setattr(time, 'sleep', None)  # After so long nobody waits.
  lease.Lease(s3).close()


def test_one_of_several_jobs_at_once_gets_the_lease(s3):
  """Both have seen that it is free."""
  taken = []
  put = storage.put

  def slow(path, content, **options):
    if options.get('is_new') and not taken:
      taken.append(None)
      taken[0] = lease.Lease(s3)
    put(path, content, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(storage, 'put', slow)
    with pytest.raises(ValueError, match='in use by'):
      lease.Lease(s3)
  taken[0].check()
  taken[0].close()


# Checkpoints


def _checkpoint(step):
  arrays = {'w': np.full([3, 2], step + 0.1, np.float32), 'count': np.int32(step)}
  return checkpoint.Checkpoint(step, arrays, {'next': step})


def _save(directory, *steps, keep=1):
  made = checkpoint.Checkpointer(directory, keep)
  for step in steps:
    made.save(_checkpoint(step))
  made.close()


def _restore(directory, keep=1):
  made = checkpoint.Checkpointer(directory, keep)
  found = made.restore_latest(_checkpoint(0).arrays)
  made.close()
  np.testing.assert_array_equal(found.arrays['w'], _checkpoint(found.step).arrays['w'])
  assert found.host == {'next': found.step}
  return found.step


def test_checkpoint_of_google_is_restored(tmp_path):
  directory = epath.Path(f'gs://bucket/{tmp_path.name}/[1] #a/checkpoints')
  _save(directory, 1, 2)
  assert checkpoint.steps(directory) == [_restore(directory)] == [2]


def test_checkpoints_are_kept_restored_and_put_aside(s3, caplog):
  directory = s3 / 'run[1] #a' / 'checkpoints'
  _save(directory, 1, 2, 3, keep=2)
  assert sorted(checkpoint.steps(directory)) == [2, 3]
  assert _restore(directory, keep=2) == 3
  data = storage.find(directory / '3' / 'arrays' / 'd', '*')[0]
  storage.put(data, storage.read(data)[:20])
  with pytest.raises(ValueError, match='3 is damaged'):
    checkpoint.read(directory)
  assert _restore(directory, keep=2) == checkpoint.read(directory).step == 2
  assert 'the checkpoint of step 3 is damaged' in caplog.text
  assert storage.exists(directory.parent / 'damaged' / '3' / LAST)
  _save(directory, 3, keep=2)
  assert _restore(directory, keep=2) == 3


class Killed(BaseException):
  """Ends a process where it is."""


class _Connection:
  """A client whose process is killed when one of its writes is due.

  Args:
    client: of the bucket.
    is_due: whether it is killed now, of the numbers of files that it has written and
      removed, the name of the next call, and the path of that.
  """

  def __init__(self, client, is_due):
    self._client, self._is_due = client, is_due
    self._made = {'put_file': 0, 'rm_file': 0, 'pipe_file': 0}

  def __getattr__(self, name):
    call = getattr(self._client, name)
    if name not in self._made:
      return call

    def counted(*args, **kwargs):
      written, removed = self._made['put_file'], self._made['rm_file']
      if self._is_due(written, removed, name, args[-1]):
        raise Killed
      self._made[name] += 1
      return call(*args, **kwargs)

    return counted

  def put(self, sources, targets):
    for source, target in zip(sources, targets, strict=True):
      self.put_file(source, target)


def test_wherever_a_save_is_killed_a_whole_checkpoint_is_left(s3, tmp_path):
  directory = s3 / 'checkpoints'
  _save(directory, 1)
  storage.download(directory / '1', tmp_path / '1')
  client = storage.client(s3)
  # How many files there are is not the same in every save.
  states = (
    (lambda *_: True, [1]),
    (lambda written, *_: written == 3, [1]),
    (lambda _, __, name, path: name == 'put_file' and path.endswith(f'/{LAST}'), [1]),
    (lambda _, __, name, ___: name == 'rm_file', [1, 2]),  # Before the first of step 1.
    (lambda _, removed, *__: removed == 3, [2]),
  )
  for is_due, left in states:
    connection = _Connection(client, is_due)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(storage, 'client', lambda path, found=connection: found)
      made = checkpoint.Checkpointer(directory)
      made.save(_checkpoint(2))
      with pytest.raises(Killed):
        made.wait()
    assert sorted(checkpoint.steps(directory)) == left
    assert checkpoint.read(directory).step == left[-1]
    # The next process finds it so, and removes what is there only in part.
    assert _restore(directory) == left[-1]
    assert sorted(storage.names(directory)) == [str(step) for step in left]
    storage.remove(directory / '2', LAST)
    storage.upload(tmp_path / '1', directory / '1', LAST)


# Logs


def test_logs_appear_when_they_are_uploaded(bucket):
  writer = writers.MetricWriter(bucket, start_step=0)
  for step in (1, 2, 3):
    writer.write(step, {'loss': float(step)})
  assert writers.read(bucket) == []
  writer.upload()
  assert [row['step'] for row in writers.read(bucket)] == [1, 2, 3]
  writer.close()
  second = writers.MetricWriter(bucket, start_step=2)
  second.write(3, {'loss': 30.0})
  second.close()
  assert [row['loss'] for row in writers.read(bucket)] == [1, 2, 30]
  assert storage.find(bucket, 'tensorboard/events*')


def test_logs_that_cannot_be_uploaded_wait(s3, monkeypatch):
  writer = writers.MetricWriter(s3, start_step=0)
  writer.write(1, {'loss': 1.0})
  with monkeypatch.context() as patch:
    patch.setattr(storage, 'put', lambda *_: (_ for _ in ()).throw(OSError('away')))
    with pytest.raises(OSError, match='away'):
      writer.upload()
  writer.close()
  assert [row['step'] for row in writers.read(s3)] == [1]


# Runs

# A program that kills itself before the checkpoint of a step has its last file.
DRIVER = """
import os, signal, sys
from experiments import pretrain
from sslhsic import storage
from sslhsic.runs import lease, runner

fatal, put_file = sys.argv.pop(1), storage.put_file

def put(file, path):
  if (path.parent.name, path.name) == (fatal, '_CHECKPOINT_METADATA'):
    os.kill(os.getpid(), signal.SIGKILL)
  put_file(file, path)

storage.put_file, lease.EXPIRY_S = put, 1
runner.main(pretrain.Pretrain)
"""
ARGUMENTS = (
  '--config=configs/pretrain/digits.py',
  *tiny_runs.TINY,
  '--config.evaluation.representations=()',
)


def _run(path, mode, spools, *more):
  """Runs as the program with these arguments, on one device."""
  parsed, arguments = flags.FlagValues(), ['program', *ARGUMENTS, *more]
  config = config_flags.DEFINE_config_file(
    'config', flag_values=parsed, sys_argv=arguments
  )
  parsed(arguments)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tempfile, 'tempdir', str(spools))
    patch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
    runner.Runner(pretrain.Pretrain, config.value, path, mode).run()


@pytest.fixture(scope='module')
def spools(tmp_path_factory):
  """Where files are kept until they are in the bucket."""
  return tmp_path_factory.mktemp('spools')


@pytest.fixture(scope='module')
def runs(emulators, spools):
  """A run that nothing has disturbed, and one that was killed and is not yet done."""
  whole, killed = (epath.Path(f's3://bucket/runs/{x}') for x in ('whole', 'killed'))
  program = tiny_runs.Program(
    *('-c', DRIVER, '8', *ARGUMENTS, f'--workdir={killed}', '--mode=train'),
    devices=1,
    TMPDIR=str(spools),
  )
  _run(whole, 'train_and_eval', spools)
  program.finish(-signal.SIGKILL)
  assert storage.names(killed / 'checkpoints' / '8')
  assert checkpoint.steps(killed / 'checkpoints') == [4]
  assert [row['step'] for row in writers.read(killed)][:4] == [1, 2, 3, 4]
  return whole, killed


def test_killed_run_ends_with_the_same_bits(runs, spools):
  whole, killed = runs
  assert list(spools.iterdir())
  _run(killed, 'train', spools)
  assert list(spools.iterdir()) == []
  assert tiny_runs.differences(killed, whole) == []
  assert sorted(storage.names(killed / 'checkpoints')) == ['16', '20']
  assert {path.relative_to(killed).parts[0] for path in storage.find(killed, '*')} == {
    *('.lease', 'checkpoints', 'config.json', 'metrics.jsonl', 'tensorboard')
  }


def test_run_is_complete_and_reported(runs):
  whole, _ = runs
  found = workdir.read_json(whole / 'results.json')
  assert found['steps'] == 20
  assert 'failed' not in found
  assert storage.read(whole / 'figures' / 'curves.png').startswith(b'\x89PNG')
  assert writers.read(whole)[-1].keys() >= {'step', 'knn_top1'}
  page = build.build([whole.parent, whole], num_encoders=0)
  assert f'>{found["knn_top1"]:.4g}<' in page
  assert 'Not done: killed.' in page
  assert 'aria-label="loss"' in page


def test_training_starts_from_a_run_in_a_bucket(runs, spools, capsys):
  whole, _ = runs
  started = whole.parent / 'started'
  from_whole = (f'--config.init_from={whole}', '--config.training.epochs=1')
  # At a rate of zero the second training keeps the parameters that it starts from.
  _run(
    started, 'train', spools, *from_whole, '--config.optimizer.base_learning_rate=0.'
  )
  assert f'starting from the state of {whole}, step 20' in capsys.readouterr().out
  found, expected = (
    checkpoint.flatten(checkpoint.read(x / 'checkpoints').arrays)
    for x in (started, whole)
  )
  kept = [name for name in expected if re.match(r'state/params/.*/w$', name)]
  assert len(kept) > 4
  for name in kept:
    np.testing.assert_array_equal(found[name], expected[name])


def test_encoder_is_used_and_exported_from_and_to_a_bucket(runs):
  whole, _ = runs
  export = whole.parent / 'export'
  settings = from_run.write(
    export,
    'torchvision',
    init_from=str(whole),
    weights='ema',
    with_projector=False,
    evaluations=[],
    command='command',
  )
  assert settings.description.startswith(f'{whole}, step 20: ssl_hsic on digits')
  with pytest.raises(ValueError, match='not empty'):
    paths.output_directory(export, '--out')
  images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
  of_run, of_export = (
    pickle.loads(pickle.dumps(sslhsic.load(path))) for path in (str(whole), export)
  )
  np.testing.assert_array_equal(of_run(images), of_export(images))
  source = sources.create('digits', 'test[:8]')
  found = embed.embed(
    settings, source, init_from=str(export), batch_size=8, max_bad_fraction=0.0
  )
  embed.write(whole.parent / 'embeddings.npz', found)
  with np.load(io.BytesIO(storage.read(whole.parent / 'embeddings.npz'))) as arrays:
    np.testing.assert_array_equal(arrays['embeddings'], found.embeddings)
  storage.remove_file(export / 'model.safetensors')  # Now it is not whole.
  with pytest.raises(ValueError, match='is no pre-training run'):
    pretrained.settings(str(export))


def _exit_code(command):
  """Of a short program, `PYTHON -c CODE ARGUMENT`, run here."""
  _, option, code, argument = shlex.split(command)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', [option, argument])
    with pytest.raises(SystemExit) as ended:
      exec(code)
  return int(ended.value.code)


def test_tables_of_runs_in_a_bucket(s3):
  table = reproduce.CATALOGUE.table('kernel', 'cifar10')
  plans = jobs.plan(table, 1, s3, reproduce.CATALOGUE.config)
  done = {'linear_top1': 0.5, 'knn_top1': 0.5, 'few_label_top1': {'1': 0.5}}

  def start(job):
    workdir.write_config(job.workdir, job.config)
    workdir.write_results(job.workdir, done | {'wall_time_s': 60.0})

  commands = jobs.commands(plans)
  tests = re.findall(r"&& (\S+ -c '.*?' s3://\S+) &&", commands[0])
  assert _exit_code(tests[0]) == 1
  wanted = jobs.in_order(plans)
  assert execution.run(wanted, start) == []
  assert _exit_code(tests[0]) == 0
  assert execution.run(wanted, pytest.fail) == []
  text = render.write(s3 / 'tables', table, results.collect(table, plans), 'command')
  assert '| Gaussian | 50.0' in text
  assert storage.read(s3 / 'tables' / 'kernel-cifar10.md').decode() == text
  assert len(collect.find([s3])) == len(wanted)
  assert [len(x.rows) for x in collect.find_tables([s3])] == [text.count('\n| ')]


def test_profile_is_uploaded(s3):
  profile = profiling.Profile(s3 / 'profile', '0:1')
  profile.before_step(0)
  profile.close()
  assert storage.find(s3 / 'profile', '*.xplane.pb')
