"""Devices: the one file that names `pmap`, its axis and its devices.

Arrays of a mapped function have a leading axis of this host's devices. What is equal
on all of them (parameters, statistics, losses) is *replicated*; a batch is *sharded*.
"""

import weakref
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

AXIS_NAME = 'devices'


def devices() -> list[jax.Device]:
  """All devices that take part, those of other hosts included."""
  return jax.devices()


class Mapped:
  """A function mapped over the devices, see `pmap`.

  JAX keeps for the life of the process what it has mapped. It gets a function that
  holds this object weakly: once that is gone, so is all that the mapped function holds,
  such as the arrays of an experiment.
  """

  def __init__(self, function: Callable, **settings: Any):
    self._function = function
    this = weakref.ref(self)

    def call(*args):
      return this()._function(*args)

    # Profiles and compiler messages call the program by this name.
    call.__name__ = getattr(function, '__name__', call.__name__)
    self._mapped = jax.pmap(call, axis_name=AXIS_NAME, devices=devices(), **settings)

  def __call__(self, *args: chex.ArrayTree) -> chex.ArrayTree:
    """Calls the mapped function."""
    return self._mapped(*args)

  def lower(self, *args: chex.ArrayTree) -> jax.stages.Lowered:
    """The program for these arguments, to be compiled or looked at."""
    return self._mapped.lower(*args)


def pmap(
  function: Callable,
  *,
  in_axes: int | tuple[int | None, ...] = 0,
  out_axes: int | tuple[int | None, ...] = 0,
  donate_argnums: tuple[int, ...] = (),
) -> Mapped:
  """Maps a function over this host's devices, with collectives over all hosts'.

  Args:
    function: sees a device's part of each argument.
    in_axes: 0 for what has a leading axis of devices, None for what all devices get.
    out_axes: likewise of the results; None for what is equal on all devices.
    donate_argnums: arguments whose memory the results may take.
  """
  return Mapped(
    function, in_axes=in_axes, out_axes=out_axes, donate_argnums=donate_argnums
  )


def pmean(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Mean over all devices, inside a mapped function."""
  return jax.lax.pmean(tree, AXIS_NAME)


def replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Puts a copy on each of this host's devices: [...] -> [devices, ...].

  Each copy comes from the host: no device holds more than its own.
  """
  count = len(local_devices())

  def copies(x: chex.Array) -> np.ndarray:
    x = np.asarray(x)
    # A view: the host holds the array once.
    return np.broadcast_to(x, (count, *x.shape))

  return _put(jax.tree.map(copies, tree))


def on_first_device(tree: chex.ArrayTree) -> chex.ArrayTree:
  """The copy of a replicated tree on this host's first device, itself: [1, ...]."""
  return jax.tree.map(lambda x: jnp.asarray(x).addressable_shards[0].data, tree)


def first(tree: chex.ArrayTree) -> chex.ArrayTree:
  """One copy of a replicated tree, in the host's memory: [devices, ...] -> [...].

  Only this host's first device takes part, and allocates nothing: the others need not
  be asked for what is equal on all.
  """
  # A CPU's own memory would be shared, and a donated step would write to it.
  return jax.tree.map(lambda x: np.array(x)[0], on_first_device(tree))


def per_device(batch_size: int, device_count: int | None = None) -> int:
  """A device's share of the global batch, by default over all devices.

  Raises:
    ValueError: the batch does not divide over the devices.
  """
  device_count = device_count or len(devices())
  if batch_size % device_count:
    raise ValueError(
      f'batch size {batch_size} does not divide over {device_count} devices; '
      f'use a multiple of {device_count}'
    )
  return batch_size // device_count


def shard(batch: chex.ArrayTree) -> chex.ArrayTree:
  """Spreads a host's batch over its devices: [b, ...] -> [devices, b/devices, ...]."""
  count = len(local_devices())
  split = lambda x: x.reshape(count, per_device(len(x), count), *x.shape[1:])
  return _put(jax.tree.map(split, batch))


def local(tree: chex.ArrayTree) -> chex.ArrayTree:
  """This host's batch of sharded arrays: [devices, b/devices, ...] -> [b, ...]."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(tree))


def gather(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Global batch of sharded arrays, on the host: [devices, b/devices, ...] -> [B, ...].

  Every host gets the whole, in the order of the hosts.
  """
  if jax.process_count() == 1:
    return local(tree)
  return multihost_utils.process_allgather(local(tree), tiled=True)


def of_hosts(x: np.ndarray) -> np.ndarray:
  """The host arrays of all hosts, one after another: [n, ...] -> [Σ n, ...].

  Bit for bit, whatever the type; n may differ between the hosts.
  """
  x = np.ascontiguousarray(x)
  if jax.process_count() == 1:
    return x
  sizes = multihost_utils.process_allgather(np.int32(len(x)))
  if not sizes.any():
    return x
  # As bytes: JAX would make float32 of float64. Exchanged arrays are of one shape.
  padded = np.zeros((sizes.max(), *x.shape[1:]), x.dtype)
  padded[: len(x)] = x
  gathered = multihost_utils.process_allgather(padded.reshape(-1).view(np.uint8))
  arrays = np.asarray(gathered).view(x.dtype).reshape(-1, *padded.shape)
  parts = zip(arrays, sizes, strict=True)
  return np.concatenate([part[:size] for part, size in parts])


def sum_of_hosts(x: np.ndarray | float) -> np.ndarray:
  """The sum over the hosts of a host array, in its type and in their order."""
  return of_hosts(np.asarray(x)[None]).sum(axis=0)


def local_devices() -> list[jax.Device]:
  """Those of this host."""
  return [device for device in devices() if device.process_index == jax.process_index()]


def _put(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Puts [devices, ...] arrays on the devices, a slice each."""
  # Of this host's devices alone: `pmap` takes arrays of its own host.
  mesh = jax.sharding.Mesh(np.array(local_devices()), (AXIS_NAME,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS_NAME))
  return jax.device_put(tree, sharding)
