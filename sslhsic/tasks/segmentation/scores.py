"""Semantic segmentation: its loss, and mean intersection over union."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sslhsic import collectives
from sslhsic.data.annotations import VOID


def cross_entropy(logits: chex.Array, classes: chex.Array) -> collectives.Weighted:
  """The cross-entropy of every pixel, [n, H, W], of which void ones have no weight.

  Args:
    logits: [n, H, W, C], float32.
    classes: [n, H, W], uint8, below C or void.
  """
  _check(logits, classes)
  is_judged = classes != VOID
  # Void is no index: class 0 stands in, at weight zero.
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.where(is_judged, classes, 0).astype(jnp.int32)
  )
  return collectives.Weighted(losses, is_judged.astype(jnp.float32))


def confusion_matrices(logits: chex.Array, classes: chex.Array) -> chex.Array:
  """How often each class was taken for each other, in every image.

  Args:
    logits: [n, H, W, C].
    classes: [n, H, W], uint8, below C or void.

  Returns:
    [n, C, C] int32: pixels of class i that were taken for class j.
  """
  _check(logits, classes)
  num_classes = logits.shape[-1]

  def of_image(predicted: chex.Array, truth: chex.Array) -> chex.Array:
    pairs = truth.astype(jnp.int32) * num_classes + predicted
    # Void is beyond the last pair, and is dropped.
    counts = jnp.zeros(num_classes**2, jnp.int32)
    counts = counts.at[jnp.where(truth == VOID, num_classes**2, pairs)].add(1)
    return counts.reshape(num_classes, num_classes)

  return jax.vmap(of_image)(jnp.argmax(logits, axis=-1), classes)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
  """Of every class, from a confusion matrix [C, C] of a whole set.

  Everingham et al. (2015), The PASCAL Visual Object Classes Challenge, section 4.2.

  Returns:
    [C], float64; NaN for a class that is neither there nor ever predicted.
  """
  confusion = np.asarray(confusion, np.float64)
  chex.assert_rank(confusion, 2)
  # For class i: C_ii / (Σ_j C_ij + Σ_j C_ji − C_ii).
  both = np.diag(confusion)
  either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
  return np.divide(both, either, out=np.full_like(both, np.nan), where=either > 0)


def _check(logits: chex.Array, classes: chex.Array) -> None:
  """Refuses arrays that are not logits [n, H, W, C] and classes [n, H, W]."""
  chex.assert_rank([logits, classes], [4, 3])
  chex.assert_equal_shape_prefix([logits, classes], 3)
  chex.assert_type([logits, classes], [jnp.float32, jnp.uint8])
