"""The theory of SSL-HSIC, measured on a batch: exact, from all pairs of features.

It shows of features that were trained with any loss how InfoNCE and BYOL relate to HSIC
(Li et al., 2021): for a kernel k of small variance

  −E_pos k + E_z log E_z' e^k  ≈  −(N/Δl)·HSIC(Z,Y) + ½·E_z Var_z' k

A device compares its own features with all features of the global batch, a block of
rows of the Gram matrix at a time: work is quadratic in the batch and falls with the
number of devices, memory is linear. Pairs are all pairs of features z, z', as in
`hsic.exact`, unless stated otherwise.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives, hsic, kernels


def measure(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> dict[str, chex.Array]:
  """HSIC and everything in this file, by the names under which it is logged.

  Args:
    views: [M, b, d] unit-norm features of this device's images.
    kernel: k.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    Float32 scalars, the same on every device: `exact_hsic_zy`, `exact_hsic_zz`,
    `exact_kernel_variance`, `view_mmd`, `kernel_info_nce`,
    `kernel_info_nce_approximation`, `view_scatter`, `alignment`, `uniformity`.
  """
  terms = hsic.exact(views, kernel, axis_name)
  rows = hsic.map_rows(_row, views, kernel, axis_name)
  mean = lambda x: collectives.global_mean(x, axis_name)
  return {
    'exact_hsic_zy': terms.hsic_zy,
    'exact_hsic_zz': terms.hsic_zz,
    'exact_kernel_variance': terms.kernel_variance,
    'view_mmd': mean(view_mmd(rows)),
    'kernel_info_nce': mean(info_nce(rows)),
    'kernel_info_nce_approximation': mean(info_nce_approximation(rows)),
    'view_scatter': view_scatter(views, axis_name),
    'alignment': alignment(views, axis_name),
    'uniformity': uniformity(views, axis_name),
  }


class Rows(NamedTuple):
  """What a feature z finds in its row of the Gram matrix, [M, b] each.

  Attributes:
    mean: E_z' k(z, z'), z itself included.
    same_image: mean of k(z, z') over the views z' of the image of z, z included.
    positive: mean of k(z, z') over the other views z' of the image of z.
    mean_of_others: E_z' k(z, z'), without z itself.
    variance_of_others: Var_z' k(z, z'), without z itself.
    log_mean_exp: log E_z' e^k(z, z'), without z itself.
  """

  mean: chex.Array
  same_image: chex.Array
  positive: chex.Array
  mean_of_others: chex.Array
  variance_of_others: chex.Array
  log_mean_exp: chex.Array


def _row(gram: chex.Array, is_same_image: chex.Array, is_itself: chex.Array) -> Rows:
  is_other = ~is_itself
  # −∞ takes z itself out of the sum.
  log_sum = jax.nn.logsumexp(jnp.where(is_other, gram, -jnp.inf))
  return Rows(
    mean=gram.mean(),
    same_image=jnp.mean(gram, where=is_same_image),
    positive=jnp.mean(gram, where=is_same_image & is_other),
    mean_of_others=jnp.mean(gram, where=is_other),
    variance_of_others=jnp.var(gram, where=is_other),
    log_mean_exp=log_sum - jnp.log(float(len(gram) - 1)),
  )


def view_mmd(rows: Rows) -> chex.Array:
  """Terms whose mean is the mean squared MMD between the views of two images.

  The squared maximum mean discrepancy of images i, j is ‖μᵢ − μⱼ‖², μᵢ the mean of the
  feature maps of the M views. Its mean over all pairs of images is 2·N/Δl times
  HSIC(Z,Y), whose terms of a view with itself are kept here and weighted alike.
  """
  return 2 * (rows.same_image - rows.mean)


def info_nce(rows: Rows) -> chex.Array:
  """Terms of InfoNCE with k in its exponent: −E_pos k + log E_z' e^k.

  Positives are two different views of an image; z' runs over all features but z, as in
  the loss `info_nce`, which without a target network is this at the linear kernel
  ⟨z, z'⟩/τ, plus the log of the number of z'.
  """
  return rows.log_mean_exp - rows.positive


def info_nce_approximation(rows: Rows) -> chex.Array:
  """Second order of `info_nce` in k: its mean is −(N/Δl)·HSIC(Z,Y) + ½·E_z Var_z' k.

  As there, z' is never z itself: (N/Δl)·HSIC(Z,Y) = E_pos k − E k.
  """
  return rows.mean_of_others + rows.variance_of_others / 2 - rows.positive


def view_scatter(views: chex.Array, axis_name: str | None = None) -> chex.Array:
  """What BYOL lowers: Σₚ‖zᵢᵖ − z̄ᵢ‖² about the mean of an image's views.

  The mean over images. With a linear kernel and centred unit features it is
  M − (M−1)·HSIC(Z,Y).
  """
  views = views.astype(jnp.float32)
  deviations = views - views.mean(axis=0, keepdims=True)
  return collectives.global_mean(jnp.sum(deviations**2, axis=(0, 2)), axis_name)


def alignment(views: chex.Array, axis_name: str | None = None) -> chex.Array:
  """Mean squared distance of two different views of an image.

  Wang and Isola (2020), https://arxiv.org/abs/2005.10242, with α = 2.
  """
  # Σ_{p<l}‖zᵖ − zˡ‖² = M·Σₚ‖zᵖ − z̄‖², over M(M−1)/2 pairs.
  return 2 * view_scatter(views, axis_name) / (len(views) - 1)


def uniformity(views: chex.Array, axis_name: str | None = None) -> chex.Array:
  """log E exp(−2‖z−z'‖²) over all pairs of different features.

  Wang and Isola (2020), https://arxiv.org/abs/2005.10242, with t = 2.
  """
  # With σ = ½, the kernel exp(−‖·‖²/2σ²) is exp(−2‖·‖²).
  rows = hsic.map_rows(
    lambda gram, _, is_itself: jnp.mean(gram, where=~is_itself),
    views,
    kernels.Gaussian(scale=0.5),
    axis_name,
  )
  return jnp.log(collectives.global_mean(rows, axis_name))
