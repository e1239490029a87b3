"""Convolution, batch norm and pooling, padded and normalised as in PyTorch."""

import haiku as hk
import jax
import jax.numpy as jnp


def conv2d(
  x: jax.Array,
  channels: int,
  kernel_size: int,
  *,
  stride: int = 1,
  dilation: int = 1,
  name: str,
) -> jax.Array:
  """Convolves [n, h, w, c] without bias, padded alike on both sides as in PyTorch."""
  padding = dilation * (kernel_size - 1) // 2
  layer = hk.Conv2D(
    channels,
    kernel_size,
    stride=stride,
    rate=dilation,
    padding=[(padding, padding)] * 2,
    with_bias=False,
    name=name,
  )
  return layer(x)


def batch_norm(
  x: jax.Array,
  *,
  is_training: bool,
  axis_name: str | None,
  decay: float = 0.9,
  scale_init: hk.initializers.Initializer | None = None,
  name: str,
) -> jax.Array:
  """Normalises the last axis of x, with batch statistics over the devices of an axis.

  The axis does not matter to initial values: the network can be initialised outside it.
  """
  layer = hk.BatchNorm(
    create_scale=True,
    create_offset=True,
    decay_rate=decay,
    eps=1e-5,
    scale_init=scale_init,
    cross_replica_axis=None if hk.running_init() else axis_name,
    name=name,
  )
  # Haiku raises a float to an integer power, which strict promotion forbids.
  with jax.numpy_dtype_promotion('standard'):
    # Initial statistics are made in training mode only.
    return layer(x, is_training or hk.running_init())


def max_pool(x: jax.Array) -> jax.Array:
  """Takes the maximum of 3×3 windows at stride 2, padded by one pixel of -∞."""
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
  )
