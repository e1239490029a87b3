"""Finding other processes; more is in tests/experiments/test_processes.py."""

import os

import jax
import pytest

from sslhsic.runs import processes


@pytest.fixture
def joined(monkeypatch):
  """The arguments with which JAX was asked to join others."""
  calls = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *x, **y: calls.append(x))
  monkeypatch.setattr(jax.config, 'update', lambda name, value: None)
  return calls


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('host:1', 2, None), '--process_id missing: several processes need'),
    ((None, 2, None), '--coordinator_address and --process_id missing'),
    (('host', 2, 0), "--coordinator_address is 'host', expected HOST:PORT"),
    (('host:1', 2, 2), '--process_id is 2, expected 0 to 1 for --num_processes=2'),
  ],
)
def test_half_or_wrong_flags_are_refused(joined, arguments, message):
  with pytest.raises(ValueError, match=message):
    processes.initialize(*arguments)
  assert not joined


@pytest.mark.parametrize(
  ('environment', 'is_several'),
  [
    ({}, False),
    ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, False),  # In a batch script, no srun.
    ({'SLURM_STEP_NUM_TASKS': '1'}, False),
    ({'SLURM_STEP_NUM_TASKS': '4'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
  ],
)
def test_launchers_of_several_are_recognised(
  joined, monkeypatch, environment, is_several
):
  for name in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  processes.initialize()
  assert joined == ([(None, None, None)] if is_several else [])


@pytest.mark.parametrize(
  ('flags', 'arguments', 'is_set'),
  [
    ('', (), False),
    ('--xla_force_host_platform_device_count=8', (), True),
    ('', ('host:1', 2, 0), True),
  ],
)
def test_cpu_devices_that_wait_for_each_other_have_threads_enough(
  joined, monkeypatch, flags, arguments, is_set
):
  monkeypatch.setenv('XLA_FLAGS', flags)
  monkeypatch.delenv('PJRT_NPROC')
  processes.initialize(*arguments)
  threads = os.environ.pop('PJRT_NPROC', None)
  assert int(threads) >= 32 if is_set else threads is None
  assert bool(joined) == bool(arguments)


def test_failure_of_what_the_first_does_is_its_own():
  with pytest.raises(ZeroDivisionError):
    processes.first_does(lambda: 1 / 0)
  assert processes.first_does(lambda: 5) == 5
