"""What every loss sees: the features of the views on this device."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Projections(NamedTuple):
  """Features of this device's b images, V views each.

  They have unit norm, unless the loss sets `unit_norm` to false.

  Attributes:
    online: [V, b, d]. With a target network: predictions of the online network;
      without: its projections.
    target: [G, b, d] projections of the target network, of the first G views, without
      gradient; or None.
  """

  online: chex.Array
  target: chex.Array | None = None

  @property
  def parts(self) -> list[chex.Array]:
    """All features of each image, those without gradient in an array of their own."""
    return [self.online] if self.target is None else [self.online, self.target]

  @property
  def views(self) -> chex.Array:
    """All features of each image, [M, b, d] with M = V + G."""
    if self.target is None:
      return self.online
    return jnp.concatenate([self.online, self.target])

  @property
  def pairs(self) -> list[tuple[chex.Array, chex.Array]]:
    """Features that are compared, in float32: [b, d] of one view and of another one.

    With a target network each online view with the target of each other view; without,
    each two views once.
    """
    online = self.online.astype(jnp.float32)
    others = online if self.target is None else self.target.astype(jnp.float32)
    return [(online[v], others[w]) for v, w in self.pair_numbers]

  @property
  def pair_numbers(self) -> list[tuple[int, int]]:
    """The numbers of the views of `pairs`."""
    if self.target is None:
      return [
        (v, w) for v in range(len(self.online)) for w in range(v + 1, len(self.online))
      ]
    return [
      (v, w) for v in range(len(self.online)) for w in range(len(self.target)) if v != w
    ]


def l2_normalize(x: chex.Array, eps: float = 1e-12) -> chex.Array:
  """x/‖x‖ along the last axis, in float32; finite at zero (eps under the root)."""
  x = x.astype(jnp.float32)
  squared_norm = jnp.sum(x**2, axis=-1, keepdims=True)
  # A floor, not a summand: eps does not shorten features of ordinary length.
  return x * jax.lax.rsqrt(jnp.maximum(squared_norm, eps))


def check(projections: Projections) -> None:
  """Checks shapes at the door of a loss.

  Raises:
    TypeError: these are no `Projections`.
    AssertionError: `online` is not [V, b, d] with V of 2 or more, or `target` not
      [G, b, d] with G from 1 to V.
  """
  if not isinstance(projections, Projections):
    raise TypeError(
      f'the features of a loss are {type(projections).__name__}, expected '
      'losses.Projections(online=…) with features [views, images, d]'
    )
  if projections.online.ndim != 3:
    raise AssertionError(
      f'features are {projections.online.shape}, expected [views, images, d]'
    )
  num_views = len(projections.online)
  if num_views < 2:
    raise AssertionError(f'{num_views} view of each image; a loss compares two or more')
  if projections.target is not None:
    chex.assert_equal_shape_suffix([projections.online, projections.target], 2)
    chex.assert_scalar_in(len(projections.target), 1, num_views)
