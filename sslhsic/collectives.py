"""Sums, means and features over all devices; the identity where there is no axis."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


def global_sum(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
  """Sum of each array over the devices, entry by entry."""
  return jax.lax.psum(tree, axis_name) if axis_name else tree


def global_mean(x: chex.Array, axis_name: str | None) -> chex.Array:
  """Mean over the entries of x on all devices, which hold equally many."""
  return mean_over_devices(x.mean(), axis_name)


def mean_over_devices(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
  """Mean of each array over the devices, entry by entry."""
  return jax.lax.pmean(tree, axis_name) if axis_name else tree


class Weighted(NamedTuple):
  """Numbers, of which the weighted mean is to be taken.

  Attributes:
    values: x, of any shape.
    weights: w, of the same shape; constants, through which no gradient flows.
  """

  values: chex.Array
  weights: chex.Array

  def mean(self, axis_name: str | None = None) -> chex.Array:
    """Σ w·x / Σ w over the entries of all devices; 0 if no entry has any weight."""
    chex.assert_equal_shape([self.values, self.weights])
    weights = jax.lax.stop_gradient(self.weights)
    sums = jnp.sum(self.values * weights), jnp.sum(weights)
    # Means in place of sums: the number of devices cancels in the quotient.
    total, weight = mean_over_devices(sums, axis_name)
    return total / jnp.where(weight > 0, weight, 1.0)


def global_batch_size(local_batch: int, axis_name: str | None) -> int:
  """B, of b images on each device."""
  return local_batch * (jax.lax.axis_size(axis_name) if axis_name else 1)


def gather_images(features: chex.Array, axis_name: str | None) -> chex.Array:
  """Features of the global batch, in its order: [M, b, d] -> [M, B, d]."""
  chex.assert_rank(features, 3)
  if not axis_name:
    return features
  return jax.lax.all_gather(features, axis_name, axis=1, tiled=True)


def image_offset(local_batch: int, axis_name: str | None) -> chex.Numeric:
  """Index in the global batch of this device's first image."""
  return jax.lax.axis_index(axis_name) * local_batch if axis_name else 0
