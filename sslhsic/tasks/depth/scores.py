"""Depth estimation: its loss, and the errors that are reported.

Depths are in metres; 0 where it is not known, which is neither learned nor judged.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import collectives

_LEAST = 1e-3  # Metres; what is predicted to be closer counts as this.


def reverse_huber(
  predicted: chex.Array, depth: chex.Array, axis_name: str | None = None
) -> chex.Array:
  """Mean over the known pixels of all devices of |e|, or (e² + c²) / 2c if |e| > c.

  With e the error and c a fifth of the largest |e| of the batch, which is taken as a
  constant. Laina et al. (2016), https://arxiv.org/abs/1606.00373, section 3.2.

  Args:
    predicted, depth: [n, H, W], float32.
    axis_name: the mapped axis of the devices, if any.

  Returns:
    A float32 scalar; 0 if no pixel is known.
  """
  _check(predicted, depth)
  is_known = depth > 0
  # Zero before the maximum is taken: unknown pixels must not set c.
  error = jnp.where(is_known, jnp.abs(predicted - depth), 0.0)
  largest = jax.lax.stop_gradient(jnp.max(error))
  # One c for the global batch: the loss does not depend on the number of devices.
  if axis_name:
    largest = jax.lax.pmax(largest, axis_name)
  # Keeps the division finite when every prediction is exact.
  c = jnp.maximum(largest / 5, jnp.finfo(jnp.float32).tiny)
  loss = jnp.where(error > c, (error**2 + c**2) / (2 * c), error)
  return collectives.Weighted(loss, is_known.astype(jnp.float32)).mean(axis_name)


class ErrorSums(NamedTuple):
  """What the errors of images are made of; each is [n], a sum over known pixels.

  Attributes:
    count: how many there are.
    within: [n, 3], how many have a ratio of predicted and true depth, or of true and
      predicted, below 1.25, 1.25² and 1.25³.
    squared: of the squared errors.
    relative: of the errors divided by the true depth.
  """

  count: chex.Array
  within: chex.Array
  squared: chex.Array
  relative: chex.Array


def error_sums(predicted: chex.Array, depth: chex.Array) -> ErrorSums:
  """The sums of every image, of depths [n, H, W]."""
  _check(predicted, depth)
  is_known = depth > 0
  # Any positive number keeps the ratios finite; `is_known` excludes these pixels.
  truth = jnp.where(is_known, depth, 1.0)
  error = jnp.where(is_known, predicted - truth, 0.0)
  predicted = jnp.maximum(predicted, _LEAST)
  ratio = jnp.maximum(predicted / truth, truth / predicted)
  total = lambda x: jnp.sum(x, axis=(1, 2), dtype=jnp.float32)
  return ErrorSums(
    count=total(is_known),
    within=jnp.stack([total(is_known & (ratio < 1.25**k)) for k in (1, 2, 3)], axis=1),
    squared=total(error**2),
    relative=total(jnp.abs(error) / truth),
  )


def errors(sums: ErrorSums) -> dict[str, float]:
  """The errors over all known pixels of all images, by their usual names.

  Eigen et al. (2014), https://arxiv.org/abs/1406.2283, section 4.
  """
  # Pixels of a whole test set are more than float32 counts exactly.
  total = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(axis=0), sums)
  within = total.within / total.count
  return {
    'delta1': float(within[0]),
    'delta2': float(within[1]),
    'delta3': float(within[2]),
    'rms': float(np.sqrt(total.squared / total.count)),
    'rel': float(total.relative / total.count),
  }


def _check(predicted: chex.Array, depth: chex.Array) -> None:
  chex.assert_rank([predicted, depth], 3)
  chex.assert_equal_shape([predicted, depth])
  chex.assert_type([predicted, depth], jnp.float32)
