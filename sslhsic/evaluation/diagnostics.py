"""Has the representation collapsed? Two numbers that tell without a label.

Both take features [n, d], and are finite on features that are all alike.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import parallel
from sslhsic.evaluation import features as features_lib
from sslhsic.evaluation import knn, spectrum


def feature_std(features: chex.Array, axis_name: str | None = None) -> chex.Array:
  """Spread of the unit-norm features, as watched in SimSiam.

    √d · mean_j std_i(z_ij / ‖z_i‖)

  is one if the directions are spread evenly over the sphere and zero if all features
  point the same way (Chen and He 2021, "Exploring Simple Siamese Representation
  Learning", arXiv:2011.10566, §4.1, who plot it without the factor √d).

  Args:
    features: [n, d] of this device.
    axis_name: the mapped axis over which the features are spread, if they are.

  Returns:
    A float32 scalar, between 0 and 1, the same on every device.
  """
  chex.assert_rank(features, 2)
  directions = knn.unit_norm(features)
  # Deviations are from the mean of all devices, hence two reductions.
  mean = _global_mean(directions, axis_name)
  variance = _global_mean(jnp.square(directions - mean[None, :]), axis_name)
  return jnp.sqrt(jnp.float32(features.shape[1])) * jnp.mean(jnp.sqrt(variance))


def feature_std_of_hosts(features: chex.Array) -> float:
  """`feature_std` of features [n, d] of all hosts, from sums in float64."""
  dim = features.shape[1]
  total, squares = np.zeros(dim), np.zeros(dim)
  for part in features_lib.chunks(np.asarray(features)):
    directions = np.asarray(knn.unit_norm(part), np.float64)
    total += directions.sum(axis=0)
    squares += np.square(directions).sum(axis=0)
  count = parallel.sum_of_hosts(len(features))
  mean, square = (parallel.sum_of_hosts(x) / count for x in (total, squares))
  return float(np.sqrt(dim) * np.sqrt(np.maximum(square - mean**2, 0)).mean())


def _global_mean(rows: chex.Array, axis_name: str | None) -> chex.Array:
  mean = jnp.mean(rows, axis=0)
  return jax.lax.pmean(mean, axis_name) if axis_name else mean


def effective_rank(features: chex.Array) -> float:
  """How many directions the features vary in: exp of the entropy of their spectrum.

    exp(−Σ_k p_k log p_k),  p_k = σ_k / Σ_l σ_l,

  σ the singular values of the centred features (Roy and Vetterli 2007, "The effective
  rank: a measure of effective dimensionality"). It lies between 1 and the rank, which
  it reaches when the σ are equal; it is 0 for features that do not vary. Singular
  values within the rounding error of float32 count as zero, else noise would have rank.

  Args:
    features: [n, d] of this host; the result counts all hosts.

  Returns:
    A number between 0 and min(n − 1, d).
  """
  sums = spectrum.moments(features)
  values = spectrum.singular_values(sums, centred=True)
  values = values[values > spectrum.rounding_error(sums)]
  if not len(values):
    return 0.0
  shares = values / values.sum()
  return float(np.exp(-np.sum(shares * np.log(shares))))
