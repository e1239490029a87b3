"""Changes of the networks whose effect on the speed of a step is measured.

They compute the same up to rounding. Each is a context in which the step is traced.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from unittest import mock

import haiku as hk
import jax

from sslhsic.networks import layers, mixed_precision


@contextlib.contextmanager
def recomputed_batch_norm() -> Iterator[None]:
  """Batch norm is computed again in the backward pass, from what it was given.

  What is kept for the backward pass is then what the convolutions gave, in their type,
  and not the intermediate results of batch norm in float32.
  """
  plain = layers.batch_norm

  def batch_norm(x: jax.Array, **options) -> jax.Array:
    if hk.running_init():
      return plain(x, **options)
    return hk.remat(functools.partial(plain, **options))(x)

  with mock.patch.object(layers, 'batch_norm', batch_norm):
    yield


class _Derived(hk.BatchNorm):
  """Batch norm of Haiku, of which JAX derives the gradient."""

  def __init__(self, decay, scale_init, axis_name, name):
    super().__init__(
      create_scale=True,
      create_offset=True,
      decay_rate=decay,
      scale_init=scale_init,
      cross_replica_axis=axis_name,
      name=name,
    )

  def __call__(
    self, x: jax.Array, is_training: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    assert mask is None
    return super().__call__(x, is_training)


@contextlib.contextmanager
def derived_batch_norm() -> Iterator[None]:
  """The gradient of batch norm is JAX's, with a sum more in its backward pass."""
  # Looked up there by the networks and by the policies of precision.
  with mock.patch.object(layers, 'BatchNorm', _Derived):
    yield


@contextlib.contextmanager
def low_precision_batch_norm() -> Iterator[None]:
  """Batch norm computes in the type of the activations, statistics included."""
  plain = hk.mixed_precision.push_policy

  def push_policy(module, policy):
    if module is layers.BatchNorm:
      policy = dataclasses.replace(policy, compute_dtype=policy.output_dtype)
    return plain(module, policy)

  of_networks = mixed_precision.hk.mixed_precision
  with mock.patch.object(of_networks, 'push_policy', push_policy):
    yield


VARIANTS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
  'none': contextlib.nullcontext,
  'batch norm with a derived gradient': derived_batch_norm,
  'batch norm recomputed': recomputed_batch_norm,
  'batch norm in bfloat16': low_precision_batch_norm,
}
