"""Several processes that train as one: how they find each other, and who writes.

Every process computes the same; the first alone reads and writes the working directory
and prints. What only it knows reaches the others through the devices, so that they need
not share a file system for it. Nothing else may be on the devices then: on CPUs, two
exchanges at once get in each other's way.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import util
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from sslhsic import parallel

# Seconds without a sign of life after which a process counts as dead, and the others
# end. jax waits 100; what is lost by an alarm is what was not saved.
_HEARTBEAT_TIMEOUT_S = 30
_CPU_THREADS = 32
_FAKE_DEVICES = 'xla_force_host_platform_device_count'  # A flag of XLA's.
# Seconds to wait for each other when all end.
_SHUTDOWN_TIMEOUT_S = 60

T = TypeVar('T')


class OtherProcessError(Exception):
  """Another process has failed."""

  def __init__(self, reason: str = 'the first process has failed, and says why'):
    super().__init__(reason)


def initialize(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes of this job, if there are any.

  Without arguments, JAX finds out on a TPU pod, and for tasks that Slurm's `srun` or
  Open MPI's `mpirun` has started; anything else is a job of one process. Must be called
  before JAX is used.

  Args:
    coordinator_address: HOST:PORT at which the first process can be reached.
    num_processes: how many there are.
    process_id: which one this is, from 0.

  Raises:
    ValueError: some arguments are missing or wrong, or the others were not found.
  """
  given = {
    '--coordinator_address': coordinator_address,
    '--num_processes': num_processes,
    '--process_id': process_id,
  }
  missing = [flag for flag, value in given.items() if value is None]
  if missing and len(missing) < len(given):
    raise ValueError(
      f'{" and ".join(missing)} missing: several processes need '
      f'{", ".join(given)}, all of them'
    )
  is_alone = bool(missing) and not _is_launched()
  if not is_alone or _FAKE_DEVICES in os.environ.get('XLA_FLAGS', ''):
    _add_cpu_threads()
  if is_alone:
    return
  if not missing:
    _check(coordinator_address, num_processes, process_id)
  _join(coordinator_address, num_processes, process_id)
  # Connects all devices now, while the processes are close to each other in time: later
  # one may compile for longer than the 30 s that Gloo would wait for it.
  connect = parallel.pmap(parallel.pmean)
  jax.block_until_ready(connect(parallel.replicate(jnp.float32(0))))
  if not is_first():
    sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115


def _add_cpu_threads() -> None:
  """Lets CPU devices that wait for each other do so in threads enough.

  A device needs two, one to start computations and one to wait for the others in. XLA
  has as many as cores or devices; with fewer than that it hangs, now and then.
  """
  os.environ.setdefault('PJRT_NPROC', str(max(_CPU_THREADS, os.cpu_count())))


def _is_launched() -> bool:
  """Whether JAX can find others: of one task it would take one device only."""
  tasks = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  # /dev/vfio serves other devices too; with libtpu installed it stands for a TPU.
  is_tpu = util.find_spec('libtpu') is not None and os.path.exists('/dev/vfio/0')
  is_tpu = is_tpu or os.path.exists('/dev/accel0')
  return is_tpu or any(int(os.environ.get(name, 1)) > 1 for name in tasks)


def _check(coordinator_address: str, num_processes: int, process_id: int) -> None:
  host, _, port = coordinator_address.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(
      f'--coordinator_address is {coordinator_address!r}, expected HOST:PORT'
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f'--process_id is {process_id}, expected 0 to {num_processes - 1} for '
      f'--num_processes={num_processes}'
    )


def _join(
  coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  detection = {} if coordinator_address is None else _NO_DETECTION
  try:
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S,
      shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S,
      **detection,
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f'could not join the other processes: {" ".join(str(error).split())}'
    ) from error


# Explicit flags say all; Slurm's variables around them mean nothing.
_NO_DETECTION = {'cluster_detection_method': 'deactivate'}


def is_first() -> bool:
  """Whether this is the process that reads, writes and prints."""
  return jax.process_index() == 0


def first_does(action: Callable[[], T]) -> T | None:
  """Lets the first process do something that may fail, for all of them.

  Returns:
    In the first process what it returns, in the others None.

  Raises:
    OtherProcessError: in the others, if it fails; in the first, the failure itself.
  """
  result, failure = None, None
  if is_first():
    try:
      result = action()
    except Exception as error:
      failure = error
  # Every process takes part in the exchange, whether the action failed or not.
  if _broadcast(np.bool_(failure is not None)):
    raise failure or OtherProcessError()
  return result


def from_first(data: bytes | None) -> bytes:
  """The bytes that the first process has, in all of them."""
  if jax.process_count() == 1:
    return data
  # The size comes first: all need a buffer of the same shape for the broadcast.
  size = int(_broadcast(np.int32(len(data) if is_first() else 0)))
  buffer = np.frombuffer(data, np.uint8) if is_first() else np.zeros(size, np.uint8)
  return _broadcast(buffer).tobytes()


def anywhere(flags: np.ndarray) -> np.ndarray:
  """Which of these flags are true in some process: [n] bool -> [n] bool."""
  if jax.process_count() == 1:
    return flags
  return multihost_utils.process_allgather(flags).any(axis=0)


def arrays_from_first(
  tree: chex.ArrayTree | None, like: chex.ArrayTree
) -> chex.ArrayTree:
  """The host arrays that the first process has, bit for bit, in all of them.

  Args:
    tree: of arrays, in the first process.
    like: a tree with the same structure, shapes and types.
  """
  if jax.process_count() == 1:
    return tree
  # As bytes: a sum over processes, which a broadcast is, knows no negative zero.
  as_bytes = lambda x: np.ascontiguousarray(x).reshape(-1).view(np.uint8)
  sent = jax.tree.map(as_bytes, jax.device_get(tree if is_first() else like))
  return jax.tree.map(
    lambda x, y: np.asarray(x).view(y.dtype).reshape(y.shape), _broadcast(sent), like
  )


def _broadcast(tree: chex.ArrayTree) -> chex.ArrayTree:
  return multihost_utils.broadcast_one_to_all(tree)


@contextmanager
def lost_others() -> Iterator[None]:
  """Says so, if what fails is the exchange with other processes.

  Raises:
    OtherProcessError: one has ended, or cannot be reached.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    reason = ' '.join(str(error).split())
    raise OtherProcessError(
      f'another process has ended or cannot be reached ({reason}); start all again, '
      'and they resume from the last checkpoint'
    ) from error


def wait_for_all() -> None:
  """Returns when all processes have come here; the end of one would end the others."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('end')


def leave(code: int) -> None:
  """Ends this process at once if there are others, which then end too.

  An orderly exit waits for the others, which may be waiting for this one.
  """
  if jax.distributed.is_initialized():
    with contextlib.suppress(OSError):  # A closed pipe, or a terminal that is gone.
      logging.flush()
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
