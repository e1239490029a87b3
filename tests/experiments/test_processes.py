"""Two processes with two devices each train as one; one dies, both go on."""

import json
import random
import shutil

import numpy as np
import pytest

from benchmarks import faults, tiny_runs
from sslhsic.data import loader, sources
from sslhsic.evaluation import representations
from sslhsic.runs import checkpoint

# Adam makes a step of every gradient, also of one that is rounding only; and the batch
# norms of a smaller network magnify rounding. Embeddings have the size of the images,
# so that the same programs compare both.
TINY = (
  *tiny_runs.TINY,
  '--config.network.encoder_options={"channels_per_group": (4, 64)}',
  '--config.optimizer.name=sgd',
  '--config.optimizer.base_learning_rate=0.4',
)


@pytest.fixture(scope='module')
def starting(tmp_path_factory):
  """A run in one process, on four devices, that may go on while others are awaited."""
  workdir = tmp_path_factory.mktemp('single') / 'run'
  return workdir, tiny_runs.start(workdir, '--mode=train', *TINY, devices=4)


@pytest.fixture(scope='module')
def single(starting):
  """The same at its end."""
  workdir, program = starting
  program.finish()
  return workdir


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """The same in two processes."""
  workdir = tmp_path_factory.mktemp('pair') / 'run'
  tiny_runs.train_several(workdir, *TINY)
  return workdir


@pytest.fixture(scope='module')
def orphaned(tmp_path_factory, pair, starting):
  """The same, one process killed at some step: the directory, and how that went."""
  del pair, starting  # What the first has compiled is used; the second uses the time.
  workdir = tmp_path_factory.mktemp('orphaned') / 'run'
  rng = np.random.default_rng(0)
  return workdir, *faults.lose_process(workdir, 1, rng, TINY)


def _assert_close(workdir, expected):
  """Parameters of the networks and of the loss, to rounding."""
  found, wanted = (
    checkpoint.read(path / 'checkpoints').arrays['state']
    for path in (workdir, expected)
  )
  for name in ('params', 'target_params', 'loss_params'):
    there, here = checkpoint.flatten(found[name]), checkpoint.flatten(wanted[name])
    assert there.keys() == here.keys()
    for key, value in here.items():
      np.testing.assert_allclose(there[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


def test_survivor_ends_with_an_error_in_bounded_time(orphaned):
  _, seconds, errors = orphaned
  assert seconds < 90  # 30 s without a sign of life, and what a busy machine adds.
  assert 'another process' in errors or 'another task died' in errors


def test_processes_train_like_one(pair, single):
  _assert_close(pair, single)


def test_both_go_on_with_the_same_bits_and_report(orphaned, pair, tmp_path):
  """Started as Slurm does."""
  workdir = shutil.copytree(orphaned[0], tmp_path / 'run')
  assert 0 < tiny_runs.steps(workdir)[-1] < 20
  job = random.randrange(10**6)
  slurm = {
    'SLURM_JOB_ID': str(job),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '2',
    'SLURM_STEP_NUM_TASKS': '2',
  }
  processes = [
    tiny_runs.start(workdir, *TINY, SLURM_PROCID=index, SLURM_LOCALID=index, **slurm)
    for index in ('0', '1')
  ]
  for program in processes:
    program.finish()
  assert tiny_runs.differences(workdir, pair) == []
  measured = json.loads((workdir / 'results.json').read_text())['representations']
  pixels = [
    representations.pixels(
      loader.one_pass(sources.create('digits', split), batch_size=80)
    )
    for split in ('train[:400]', 'test[:90]')
  ]
  protocol = representations.Protocol()
  expected = representations.knn_top1(*pixels, num_classes=10, protocol=protocol)
  assert measured['pixels']['knn_top1'] == expected > 0.9


def test_one_process_with_two_devices_goes_on_with_the_same_images(
  orphaned, single, tmp_path
):
  workdir = shutil.copytree(orphaned[0], tmp_path / 'run')
  program = tiny_runs.train(workdir, *TINY)
  assert 'cpu_aot_loader' not in program.err  # XLA's chatter about its own cache.
  _assert_close(workdir, single)
