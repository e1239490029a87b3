"""Losses of the region proposal network, of the box head and of the mask head.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, equation 1 (both losses divided by
the number of samples); Lin et al. (2017), https://arxiv.org/abs/1612.03144; He et al.
(2017), https://arxiv.org/abs/1703.06870, section 3. Each is a mean over what was
sampled in all images, which the caller takes: see `collectives.Weighted`.
"""

import chex
import jax.numpy as jnp
import optax

from sslhsic.collectives import Weighted


def smooth_l1(error: chex.Array, beta: float) -> chex.Array:
  """|e| − β/2, or e²/2β below β (Girshick 2015, https://arxiv.org/abs/1504.08083)."""
  absolute = jnp.abs(error)
  # The quadratic branch would divide by zero.
  if not beta:
    return absolute
  return jnp.where(absolute < beta, error**2 / (2 * beta), absolute - beta / 2)


def objectness(logits: chex.Array, labels: chex.Array) -> Weighted:
  """Binary cross-entropy of sampled anchors, [n, s].

  Args:
    logits: [n, s], whether anchors are objects.
    labels: [n, s], 1 (object), 0 (background), -1 (not sampled).
  """
  chex.assert_equal_shape([logits, labels])
  is_object = (labels > 0).astype(jnp.float32)
  losses = optax.sigmoid_binary_cross_entropy(logits, is_object)
  return Weighted(losses, _as_weights(labels >= 0))


def box_codes(
  predicted: chex.Array,
  codes: chex.Array,
  labels: chex.Array,
  beta: float,
) -> Weighted:
  """Smooth L1 losses of positive samples, [n, s]; the mean is over all samples.

  Args:
    predicted, codes: [n, s, 4], see `boxes.encode`.
    labels: [n, s], 1 (positive), 0 (negative), -1 (not sampled).
    beta: of `smooth_l1`.
  """
  chex.assert_equal_shape([predicted, codes])
  losses = jnp.sum(smooth_l1(predicted - codes, beta), axis=-1)
  losses = jnp.where(labels > 0, losses, 0.0)
  return Weighted(losses, _as_weights(labels >= 0))


def classification(logits: chex.Array, classes: chex.Array) -> Weighted:
  """Cross-entropy of sampled regions, [n, s].

  Args:
    logits: [n, s, C + 1], the last one for background.
    classes: [n, s] int32, C for background, -1 (not sampled).
  """
  # −1 is no index: class 0 stands in, at weight zero.
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(classes, 0)
  )
  return Weighted(losses, _as_weights(classes >= 0))


def masks(logits: chex.Array, masks: chex.Array, labels: chex.Array) -> Weighted:
  """Mean binary cross-entropy of the pixels of positive regions, [n, s].

  Args:
    logits: [n, s, M, M], for the true class of each region.
    masks: [n, s, M, M], in [0, 1].
    labels: [n, s], 1 for positive regions.
  """
  chex.assert_equal_shape([logits, masks])
  losses = optax.sigmoid_binary_cross_entropy(logits, masks).mean(axis=(-2, -1))
  return Weighted(losses, _as_weights(labels > 0))


def _as_weights(is_counted: chex.Array) -> chex.Array:
  return is_counted.astype(jnp.float32)
