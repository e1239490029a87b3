"""A pod of four processes loses one; two go on, and end as one process alone."""

import json
import os
import random
import sys

import numpy as np
import pytest

from benchmarks import faults, tiny_runs
from sslhsic.runs import checkpoint, writers
from tests.experiments import forks, transfers
from tests.launch import fakes

# Adam makes a step of every gradient, also of one that is rounding only; and the batch
# norms of a smaller network magnify rounding. Embeddings have the size of the images,
# so that the same programs compare both.
TINY = (
  *tiny_runs.TINY,
  '--config.network.encoder_options={"channels_per_group": (4, 64)}',
  '--config.optimizer.name=sgd',
  '--config.optimizer.base_learning_rate=0.4',
  '--config.loss.ssl_hsic.block_size=2',  # For eight devices.
  '--config.runner.log_every=2',  # There are steps that are not logged.
  '--config.evaluation.labels_per_class=(1,)',
  # launch/slurm.sh would start eight workers for each process.
  '--config.data.num_workers=0',
)
COUNTED = ('-m', 'tests.experiments.transfers')
# In its place, the script with which Slurm starts what sbatch is given.
SLURM = ('-c', 'import os, sys; os.execvp("bash", ["bash", *sys.argv[1:]])')
BATCH_BYTES = tiny_runs.BATCH_SIZE * (2 * 64 + 4 + 4)  # Two views, label and index.


@pytest.fixture(scope='module')
def starting(tmp_path_factory):
  """A run in one process, on four devices, that may go on while others are awaited."""
  workdir = tmp_path_factory.mktemp('single') / 'run'
  with forks.forked():
    return workdir, tiny_runs.start(workdir, *TINY, program=COUNTED, devices=4)


@pytest.fixture(scope='module')
def pod(tmp_path_factory, starting):
  """The same in four processes with two devices each, of which the third is killed.

  The directory, the time until the others have ended, and these.
  """
  del starting  # It uses the time in which the others only wait.
  workdir = tmp_path_factory.mktemp('pod') / 'run'
  rng = np.random.default_rng(0)
  settings = {'count': 4, 'program': COUNTED}
  with forks.forked():
    return workdir, *faults.lose_process(workdir, 2, rng, TINY, **settings)


@pytest.fixture(scope='module')
def single(starting):
  """The run in one process at its end: its directory and what it has printed."""
  workdir, program = starting
  return workdir, program.finish()


@pytest.fixture(scope='module')
def resumed(pod, tmp_path_factory):
  """What is left of the pod, resumed by Slurm in two processes up to its report."""
  workdir, bin_path = pod[0], tmp_path_factory.mktemp('slurm')
  assert 0 < tiny_runs.steps(workdir)[-1] < 20
  fakes.write(bin_path, fakes.CLUSTER)
  tiny_runs.start(
    workdir,
    *TINY,
    program=(*SLURM, 'launch/slurm.sh'),
    PATH=f'{bin_path}:{os.environ["PATH"]}',
    FAKE_PYTHON=sys.executable,
    SLURM_JOB_ID=str(random.randrange(10**6)),
    SLURM_NTASKS='2',
    SLURM_CPUS_PER_TASK='1',
  ).finish()
  return workdir


def test_survivors_end_with_an_error_in_bounded_time(pod):
  _, seconds, programs = pod
  assert seconds < 90  # 30 s without a sign of life, and what a busy machine adds.
  assert len(programs) == 3
  for program in programs:
    errors = program.err
    assert 'another process' in errors or 'another task died' in errors


def _assert_nothing_waits(program, num_devices, num_processes):
  """Of the steps after which nothing is logged or saved."""
  line = next(x for x in program.out.splitlines() if x.startswith('[{'))
  steps = json.loads(line)
  assert len(steps) == transfers.LAST
  for number in (2, 4):
    # Loss and norm of the gradient of an earlier step, which are there already.
    assert steps[number]['fetched'] in ([], [[[], True]] * 2)
    # On each device two keys and the number of the step.
    assert 0 < steps[number]['put'] <= 20 * num_devices
    assert steps[number]['moved'] == 0
  assert steps[2]['fetched']
  # A batch a step, sent while others are computed.
  batches = sum(step['input'] for step in steps) * num_processes / BATCH_BYTES
  assert transfers.LAST - 3 < batches < transfers.LAST + 4


def test_no_step_waits_for_the_one_before(pod, single):
  _assert_nothing_waits(single[1], num_devices=4, num_processes=1)
  for program in pod[2]:
    _assert_nothing_waits(program, num_devices=2, num_processes=4)


def test_processes_train_like_one(resumed, single):
  found, wanted = (
    checkpoint.read(path / 'checkpoints').arrays['state']
    for path in (resumed, single[0])
  )
  for name in ('params', 'target_params', 'loss_params', 'average'):
    there, here = checkpoint.flatten(found[name]), checkpoint.flatten(wanted[name])
    assert there.keys() == here.keys()
    for key, value in here.items():
      np.testing.assert_allclose(there[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
  curves = [
    [(row['step'], row['loss']) for row in writers.read(path) if 'loss' in row]
    for path in (resumed, single[0])
  ]
  assert [step for step, _ in curves[1]] == [1, *range(2, 21, 2)]
  np.testing.assert_allclose(*curves, rtol=1e-5, atol=1e-5)


def _numbers(results, prefix=''):
  for name, value in results.items():
    if isinstance(value, dict):
      yield from _numbers(value, f'{prefix}{name}.')
    elif isinstance(value, float | int):
      yield f'{prefix}{name}', value


def test_processes_evaluate_and_report_like_one(resumed, single):
  found, wanted = (
    dict(_numbers(json.loads((path / 'results.json').read_text())))
    for path in (resumed, single[0])
  )
  measured = {'wall_time_s', 'images_per_second', 'peak_memory_bytes'}
  assert found.keys() == wanted.keys() >= measured
  assert {
    'knn_top1',
    'online_top1',
    'effective_rank',
    'representations.pixels.knn_top1',
    'representations.trained.linear_top1',
  } <= wanted.keys()
  for name in wanted.keys() - measured:
    # Of the 90 test images, rounding may move one that is between two classes.
    tolerance = 1.01 / 90 if 'top1' in name else 1e-4
    assert found[name] == pytest.approx(wanted[name], rel=1e-3, abs=tolerance), name
  assert (resumed / 'figures' / 'embeddings.png').exists()
