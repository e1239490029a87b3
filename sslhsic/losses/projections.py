"""What every loss sees: the features of two views on this device."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Projections(NamedTuple):
  """Features of this device's b images, views 1 and 2.

  They have unit norm, but for the losses whose `unit_norm` is false.

  Attributes:
    online: [2, b, d]. With a target network: predictions of the online network;
      without: its projections.
    target: [2, b, d] projections of the target network, without gradient, or None.
  """

  online: chex.Array
  target: chex.Array | None = None

  @property
  def parts(self) -> list[chex.Array]:
    """All features of each image, those without gradient in an array of their own."""
    return [self.online] if self.target is None else [self.online, self.target]

  @property
  def views(self) -> chex.Array:
    """All features of each image, [M, b, d]: M is 4 with a target network, else 2."""
    if self.target is None:
      return self.online
    return jnp.concatenate([self.online, self.target])

  @property
  def pairs(self) -> list[tuple[chex.Array, chex.Array]]:
    """What is compared, in float32: [b, d] of a view and [b, d] of the other one.

    With a target network each online view with the target of the other; without, the
    two views, once.
    """
    online = self.online.astype(jnp.float32)
    if self.target is None:
      return [(online[0], online[1])]
    target = self.target.astype(jnp.float32)
    return [(online[0], target[1]), (online[1], target[0])]


def l2_normalize(x: chex.Array, eps: float = 1e-12) -> chex.Array:
  """x/‖x‖ along the last axis, in float32; finite at zero (eps under the root)."""
  x = x.astype(jnp.float32)
  squared_norm = jnp.sum(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared_norm, eps))


def check(projections: Projections) -> None:
  """Checks shapes at the door of a loss.

  Raises:
    AssertionError: `online` is not [2, b, d], or `target` of another shape.
  """
  chex.assert_shape(projections.online, (2, None, None))
  if projections.target is not None:
    chex.assert_equal_shape([projections.online, projections.target])
