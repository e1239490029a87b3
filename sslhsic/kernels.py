"""Kernels on features, and the law of their random Fourier frequencies.

A kernel is a small pytree that holds its scale. It can be evaluated,
`kernel(x, y)`. The kernels that the SSL-HSIC loss takes are functions of the inner
product of unit-norm features, `on_sphere(t)`. A translation-invariant kernel also knows
how the frequencies of its Fourier features are distributed (`amplitudes`) and how steep
it is (`log_slope`).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


def squared_distances(x: chex.Array, y: chex.Array) -> chex.Array:
  """‖xᵢ − yⱼ‖² for all pairs, never negative.

  Args:
    x: [n, d] features.
    y: [m, d] features.

  Returns:
    [n, m], float32.
  """
  chex.assert_rank([x, y], 2)
  chex.assert_equal_shape_suffix([x, y], 1)
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  inner = jnp.matmul(x, y.T, precision='highest')
  norms = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :]
  # One matrix product instead of [n, m, d] differences; rounding can make it negative.
  return jnp.maximum(norms - 2 * inner, 0)


@jax.jit
def _distances(x: chex.Array, y: chex.Array) -> chex.Array:
  """‖xᵢ − yⱼ‖, [n, m]; from differences, for rounding would show under the root."""
  chex.assert_rank([x, y], 2)
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  s = jnp.sum((x[:, None] - y[None, :]) ** 2, axis=-1)
  # The root's gradient is infinite at 0; a pair of equal points gets none instead.
  return jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1)), 0)


def squared_distance_on_sphere(t: chex.Array) -> chex.Array:
  """‖x − y‖² of unit-norm x and y with ⟨x, y⟩ = t, which rounding may put above 1."""
  return jnp.maximum(2 - 2 * t, 0)


class Linear(NamedTuple):
  """k(x, y) = ⟨x, y⟩ / c²; its feature map is x / c.

  With c² = τ it is the kernel that InfoNCE at temperature τ has in its exponent.
  """

  scale: chex.Numeric = 1.0

  def __call__(self, x: chex.Array, y: chex.Array) -> chex.Array:
    """Gram matrix: [n, d], [m, d] -> [n, m], float32."""
    chex.assert_rank([x, y], 2)
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.matmul(x, y.T, precision='highest') / self.scale**2

  def on_sphere(self, t: chex.Array) -> chex.Array:
    """k(x, y) of unit-norm x and y with ⟨x, y⟩ = t."""
    return t / self.scale**2


class Gaussian(NamedTuple):
  """k(x, y) = exp(−‖x−y‖² / 2c²)."""

  scale: chex.Numeric = 1.0

  def __call__(self, x: chex.Array, y: chex.Array) -> chex.Array:
    """Gram matrix: [n, d], [m, d] -> [n, m], float32."""
    return jnp.exp(-squared_distances(x, y) / (2 * self.scale**2))

  def on_sphere(self, t: chex.Array) -> chex.Array:
    """k(x, y) of unit-norm x and y with ⟨x, y⟩ = t."""
    return jnp.exp(-squared_distance_on_sphere(t) / (2 * self.scale**2))

  def log_slope(self, s: chex.Array) -> chex.Array:
    """log|∂k/∂s| at squared distances s."""
    return -jnp.log(2 * self.scale**2) - s / (2 * self.scale**2)

  def amplitudes(self, tails: chex.Array) -> chex.Array:
    """Frequencies are n/c, n ~ N(0, I): the amplitude is one."""
    return jnp.ones_like(tails)


class InverseMultiquadric(NamedTuple):
  """k(x, y) = c / √(c² + ‖x−y‖²), the kernel of SSL-HSIC (Li et al., 2021)."""

  scale: chex.Numeric = 1.0

  def __call__(self, x: chex.Array, y: chex.Array) -> chex.Array:
    """Gram matrix: [n, d], [m, d] -> [n, m], float32."""
    return self.scale * jax.lax.rsqrt(self.scale**2 + squared_distances(x, y))

  def on_sphere(self, t: chex.Array) -> chex.Array:
    """k(x, y) of unit-norm x and y with ⟨x, y⟩ = t."""
    return self.scale * jax.lax.rsqrt(self.scale**2 + squared_distance_on_sphere(t))

  def log_slope(self, s: chex.Array) -> chex.Array:
    """log|∂k/∂s| = log c − log 2 − 3/2·log(s + c²) at squared distances s."""
    return jnp.log(self.scale) - jnp.log(2.0) - 1.5 * jnp.log(s + self.scale**2)

  def amplitudes(self, tails: chex.Array) -> chex.Array:
    """|g| of the exact scale mixture (1 + r²)^(−1/2) = E exp(−g²r²/2), g ~ N(0, 1).

    Frequencies are then |g|·n/c with n ~ N(0, I), in every dimension.

    Args:
      tails: upper-tail probabilities in (0, 1]; uniform ones give |g| its law.

    Returns:
      The |g| whose upper-tail probability is `tails`, of the same shape.
    """
    # The tail, not 1 − tail: float32 would round the largest amplitudes to ∞.
    return -jax.scipy.special.ndtri(tails / 2)


class Laplace(NamedTuple):
  """k(x, y) = exp(−‖x−y‖ / c).

  For measuring, not for training on random features: it has a kink at x = y, so the
  length of its frequencies has no mean, nor has the gradient that features give.
  """

  scale: chex.Numeric = 1.0

  def __call__(self, x: chex.Array, y: chex.Array) -> chex.Array:
    """Gram matrix: [n, d], [m, d] -> [n, m], float32."""
    return jnp.exp(-_distances(x, y) / self.scale)

  def amplitudes(self, tails: chex.Array) -> chex.Array:
    """1/|g| of the exact scale mixture exp(−r) = E exp(−r²/2g²), g ~ N(0, 1).

    Frequencies n/(c·|g|) follow the multivariate Cauchy law, in every dimension.

    Args:
      tails: upper-tail probabilities in (0, 1]; uniform ones give 1/|g| its law.

    Returns:
      The 1/|g| whose upper-tail probability is `tails`, of the same shape.
    """
    # P(1/|g| > a) = P(|g| < 1/a) = erf(1/(a√2)).
    return 1 / (jnp.sqrt(2.0) * jax.scipy.special.erfinv(tails))


Kernel = Linear | Gaussian | InverseMultiquadric | Laplace
