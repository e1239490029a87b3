"""The measurements on an accelerator, small and on the CPU: their tables are whole."""

import gzip
import json

import numpy as np
import pytest

from benchmarks import (
  accelerator,
  accelerator_checks,
  accelerator_run,
  accelerator_tables,
  kernel_trace,
  loss_time,
  methods,
  step_process,
)

_NETWORK = accelerator.small_plan().network


class _Process:
  """Stands for a `StepProcess`; the second batch size of a case does not fit."""

  def __init__(self, settings):
    self.settings = settings
    self.is_closed = False

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def reply(self, seconds):
    if self.settings.batch_size == 1024:
      return {'compile_s': 1.0, 'device_bytes': 200 * 2**30}
    if self.settings.method == 'info_nce':
      raise step_process.StepError('the compiler crashed')
    return {'compile_s': 1.0, 'device_bytes': 30 * 2**30}

  def run(self, seconds, *, on_device, timeout):
    images = self.settings.batch_size * (
      2.0 if self.settings.variant == 'none' else 3.0
    )
    return {
      'images_per_second': images,
      'data_wait_share': 0.0 if on_device else 0.125,
      'peak_bytes': 40 * 2**30,
    }

  def profile(self, directory, *, timeout):
    raise step_process.StepError('no profiler')

  def close(self):
    self.is_closed = True


@pytest.fixture
def run(tmp_path):
  with accelerator_run.Run(tmp_path, minutes=8.5) as run:
    yield run


def _fake(run, monkeypatch):
  """Replaces all processes of a run; returns those that were started."""
  started = []

  def start(settings, flags='', **variables):
    started.append(_Process(settings))
    return started[-1]

  def program(*arguments, each_line=None, **_):
    if 'benchmarks.loss_time' in arguments:
      row = {'method': 'byol', 'batch_size': 512, 'milliseconds': 0.5}
      each_line(json.dumps(row | {'from': 0.4, 'to': 0.6, 'temporary_bytes': 2**20}))
      each_line('{"method": "byol", "batch_size": 2048, "error": "out of memory"}')
    if 'golden' in arguments:
      return '{"hsic_zy": 1e-7}'
    if 'resume' in arguments:
      return '{"killed_after": 4, "exit_code": -9, "differences": []}'
    if arguments[0] == '-c':
      return json.dumps(
        {'platform': 'gpu', 'kind': 'NVIDIA H200', 'bytes': 130 * 2**30, 'versions': {}}
      )
    raise step_process.StepError('exit code 1: no such check')

  monkeypatch.setattr(run, 'start', start)
  monkeypatch.setattr(run, 'program', program)
  monkeypatch.setattr(accelerator.step, 'write_images', lambda *_: None)
  monkeypatch.setattr(accelerator.step, 'flops_per_image', lambda _: 64e9)
  monkeypatch.setattr(accelerator.importlib.util, 'find_spec', lambda _: True)
  return started


def test_sections_that_fail_are_named_and_the_rest_is_measured(
  run, monkeypatch, tmp_path
):
  started = _fake(run, monkeypatch)
  accelerator.Accelerator(run).measure(small=False)
  result = json.loads((tmp_path / 'accelerator.json').read_text())
  assert all(process.is_closed for process in started)
  assert result['checks']['golden'] == {'hsic_zy': 1e-7}
  assert 'no such check' in result['skipped']['check: gradients']
  assert 'no profiler' in result['skipped']['profile']
  assert (
    'needs more memory'
    in result['skipped']['resnet50_224, ssl_hsic, pairs, batch 1024']
  )
  assert 'the compiler crashed' in str(result['skipped'])
  measured = {(row['case'], row['method']) for row in result['steps']}
  assert measured == {
    *(('resnet50_224', x) for x in accelerator.METHODS if x != 'info_nce'),
    *(('resnet18_32', x) for x in ('ssl_hsic, pairs', 'byol', 'ssl_hsic, exact')),
  }
  (main,) = (row for row in result['steps'] if row.get('with_loader'))
  assert (main['batch_size'], main['data_wait_share']) == (512, 0.125)
  assert main['utilisation'] == pytest.approx(main['tflops'] / 989)
  assert [row['variant'] for row in result['variants']] == list(accelerator.VARIANTS)
  assert result['variants'][0]['ratio'] == 1.5
  assert [row['ratio']['on_device'] for row in result['comparison']] == [1.0, 1.0]
  share = 0.5e-3 * main['on_device'] / 512
  assert result['loss']['rows'][0]['share'] == pytest.approx(share)
  shown = (tmp_path / 'accelerator.md').read_text()
  assert '| jax / torch |' in shown
  assert '| byol | 0.5 (0.4 to 0.6; 1 MiB; 0.10%) | out of memory |' in shown
  assert 'the same bits as an undisturbed run' in shown
  assert '## Not measured' in shown


def test_what_does_not_fit_into_the_time_is_named(run, monkeypatch, tmp_path):
  _fake(run, monkeypatch)
  run._deadline = run._start + 20
  accelerator.Accelerator(run).measure(small=False)
  result = json.loads((tmp_path / 'accelerator.json').read_text())
  assert 'needs about 30 s' in result['skipped']['step']
  assert result['loss']['rows']


def test_a_step_is_measured_in_a_process(tmp_path):
  settings = step_process.Settings('digits', 'byol', batch_size=8, network=_NETWORK)
  with accelerator_run.Run(tmp_path, minutes=5) as run:
    run.result['device'] = {'platform': 'cpu'}
    with run.start(settings) as process:
      assert process.reply(600)['device_bytes'] > 0
      for on_device in (True, False):
        found = process.run(0.1, on_device=on_device, timeout=600)
        assert found['images_per_second'] > 0
      process.profile(tmp_path / 'profile', timeout=600)
      process._ask({'nonsense': 0})
      with pytest.raises(step_process.StepError, match='KeyError'):
        process.reply(600)
  shown = kernel_trace.summary(kernel_trace.read(tmp_path / 'profile'))
  assert sum(shown['kinds'].values()) == pytest.approx(1)
  assert len(shown['kernels']) == 10


def test_kernels_are_those_of_streams_and_are_sorted_into_kinds(tmp_path):
  kernel = lambda tid, name, dur, op='': {
    'ph': 'X',
    'pid': 1,
    'tid': tid,
    'name': name,
    'dur': dur,
    'args': {'hlo_op': op} if op else {},
  }
  thread = lambda tid, name: {
    'ph': 'M',
    'pid': 1,
    'tid': tid,
    'name': 'thread_name',
    'args': {'name': name},
  }
  events = [
    thread(1, 'Stream #13(Compute)'),
    thread(2, 'XLA Ops'),
    kernel(1, 'sm90_xmma_fprop_implicit_gemm_bf16_nhwc', 4000, 'cudnn-conv.3'),
    kernel(1, 'loop_convert_fusion_3', 3000, 'loop_convert_fusion.3'),
    kernel(1, 'nvjet_hsh_128x64', 2000),
    kernel(1, 'nchwToNhwcKernel', 500, 'cudnn-conv.3'),
    kernel(1, 'nccl_something', 500),
    kernel(2, 'cudnn-conv.3', 4000, 'cudnn-conv.3'),
  ]
  with gzip.open(tmp_path / 'a.trace.json.gz', 'wt') as file:
    json.dump({'traceEvents': events}, file)
  shown = kernel_trace.summary(kernel_trace.read(tmp_path), count=2)
  assert shown['milliseconds'] == pytest.approx(10)
  assert shown['kinds'] == pytest.approx(
    dict(zip(kernel_trace.KINDS, (0.4, 0.2, 0.05, 0.3, 0.05), strict=True))
  )
  assert [x['kind'] for x in shown['kernels']] == [
    'convolution',
    'batch norm, elementwise',
  ]


def test_losses_are_timed_and_failures_are_told(monkeypatch):
  monkeypatch.setattr(loss_time, 'METHODS', ('byol', 'published', 'nonsense'))
  rows = list(loss_time.measure((8,), dim=4, rounds=2, seconds=0.0))
  assert [row['method'] for row in rows] == ['byol', 'published', 'nonsense']
  assert all(row['from'] <= row['milliseconds'] <= row['to'] for row in rows[:2])
  assert 'nonsense' in rows[2]['error']


def test_published_values_are_met_and_gradients_compared(tmp_path):
  assert max(accelerator_checks.golden().values()) < 1e-4
  expected = {'byol/loss': 2.0, 'byol/gradient/w': [3.0, 4.0], 'byol/gradient/b': [0.0]}
  np.savez(tmp_path / 'cpu.npz', **expected)
  found = expected | {'byol/loss': 2.02, 'byol/gradient/w': [3.0, 4.5]}
  np.savez(tmp_path / 'device.npz', **found)
  compared = accelerator_checks.compare(
    *(tmp_path / f'{x}.npz' for x in ('device', 'cpu'))
  )
  assert compared['byol'] == {
    'loss': pytest.approx(0.01),
    'gradient': pytest.approx(0.1),
    'worst': pytest.approx(0.1),
    'parameter': 'w',
  }


def test_every_loss_can_be_measured():
  assert {name for name, _ in methods.METHODS.values()} == set(methods.losses.LOSSES)
  assert all(callable(methods.function(name)) for name in methods.METHODS)


def test_tables_of_nothing_are_short():
  assert accelerator_tables.markdown({'skipped': {}}).startswith('# no device')
