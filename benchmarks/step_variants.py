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
import jax.numpy as jnp

from sslhsic import collectives
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


class _BatchNorm(hk.BatchNorm):
  """Batch norm of which the gradient is written by hand; keeps x in bfloat16."""

  def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
    if not is_training:
      return super().__call__(x, is_training)
    shape = (1,) * (x.ndim - 1) + x.shape[-1:]
    scale = hk.get_parameter('scale', shape, x.dtype, self.scale_init)
    offset = hk.get_parameter('offset', shape, x.dtype, self.offset_init)
    y, mean, variance = _normalised(x, scale, offset, self.cross_replica_axis)
    self.mean_ema(mean)
    self.var_ema(variance)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalised(x, scale, offset, axis_name):
  return _normalised_forward(x, scale, offset, axis_name)[0]


def _normalised_forward(x, scale, offset, axis_name):
  mean, square = _means((x, jnp.square(x)), axis_name)
  variance = square - jnp.square(mean)
  root = jax.lax.rsqrt(variance + 1e-5)
  y = (x - mean) * (root * scale) + offset
  return (y, mean, variance), (x.astype(jnp.bfloat16), mean, root, scale)


def _normalised_backward(axis_name, kept, gradients):
  x, mean, root, scale = kept
  dy = gradients[0]
  axes = tuple(range(dy.ndim - 1))
  centred = x.astype(jnp.float32) - mean
  sums = [jnp.sum(v, axes, keepdims=True) for v in (dy, dy * centred)]
  count = dy.size // dy.shape[-1]
  dy_mean, product_mean = collectives.mean_over_devices(
    [v / count for v in sums], axis_name
  )
  dx = scale * root * (dy - dy_mean - centred * (jnp.square(root) * product_mean))
  return dx, sums[1] * root, sums[0]


def _means(values, axis_name):
  axes = tuple(range(values[0].ndim - 1))
  means = [jnp.mean(v, axes, keepdims=True) for v in values]
  return collectives.mean_over_devices(means, axis_name)


_normalised.defvjp(_normalised_forward, _normalised_backward)


@contextlib.contextmanager
def own_gradient_batch_norm() -> Iterator[None]:
  """Batch norm with two sums in its backward pass, and x kept in bfloat16."""
  # Looked up there by the networks and by the policies of precision.
  with mock.patch.object(hk, 'BatchNorm', _BatchNorm):
    yield


@contextlib.contextmanager
def low_precision_batch_norm() -> Iterator[None]:
  """Batch norm computes in the type of the activations, statistics included."""
  plain = hk.mixed_precision.push_policy

  def push_policy(module, policy):
    if module is hk.BatchNorm:
      policy = dataclasses.replace(policy, compute_dtype=policy.output_dtype)
    return plain(module, policy)

  of_networks = mixed_precision.hk.mixed_precision
  with mock.patch.object(of_networks, 'push_policy', push_policy):
    yield


VARIANTS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
  'none': contextlib.nullcontext,
  'batch norm with its own gradient': own_gradient_batch_norm,
  'batch norm recomputed': recomputed_batch_norm,
  'batch norm in bfloat16': low_precision_batch_norm,
}
