"""The theory of SSL-HSIC, measured on a batch: exact, from all pairs of features.

It shows of features that were trained with any loss how InfoNCE and BYOL relate to HSIC
(Li et al., 2021): for a kernel k of small variance

  −E_pos k + E_z log E_z' e^k  ≈  −(N/Δl)·HSIC(Z,Y) + ½·E_z Var_z' k

The functions take views [M, b, d], unit-norm features of this device's images, and give
a float32 scalar that is the same on every device. A device compares its own features
with those of the global batch: work and memory, quadratic in the batch, fall with the
number of devices. Pairs are all pairs of features z, z', as in the exact functions of
`hsic`, unless stated otherwise. Jitted together, all share one Gram matrix.
"""

import chex
import jax
import jax.numpy as jnp

from sslhsic import hsic, kernels
from sslhsic.losses import collectives


def measure(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> dict[str, chex.Array]:
  """HSIC and everything in this file, by the names under which it is logged."""
  in_kernel = {
    'exact_hsic_zy': hsic.exact_hsic_zy,
    'exact_hsic_zz': hsic.exact_hsic_zz,
    'exact_kernel_variance': hsic.exact_kernel_variance,
    'view_mmd': view_mmd,
    'kernel_info_nce': info_nce,
    'kernel_info_nce_approximation': info_nce_approximation,
  }
  of_features = {
    'view_scatter': view_scatter,
    'alignment': alignment,
    'uniformity': uniformity,
  }
  return {
    name: function(views, kernel, axis_name) for name, function in in_kernel.items()
  } | {name: function(views, axis_name) for name, function in of_features.items()}


def view_mmd(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """Mean squared MMD between the view distributions of two images, over all pairs.

  The squared maximum mean discrepancy of images i, j is ‖μᵢ − μⱼ‖², μᵢ the mean of the
  feature maps of the M views. Its mean is 2·N/Δl times HSIC(Z,Y), whose terms of a view
  with itself are kept here and weighted like the others.
  """
  gram = hsic.gram_matrix(views, kernel, axis_name)
  same_image = jnp.where(hsic.is_same_image(gram, axis_name), gram, 0).sum(axis=(2, 3))
  return 2 * collectives.global_mean(
    same_image / len(views) - gram.mean(axis=(2, 3)), axis_name
  )


def info_nce(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """InfoNCE with k in its exponent: −E_pos k + E_z log E_z' e^k.

  Positives are two different views of an image; z' runs over all features but z, as in
  the loss `info_nce`, which without a target network is this at the linear kernel
  ⟨z, z'⟩/τ, plus the log of the number of z'.
  """
  gram = hsic.gram_matrix(views, kernel, axis_name)
  log_sum = jax.nn.logsumexp(_without_itself(gram, -jnp.inf, axis_name), axis=(2, 3))
  log_mean = log_sum - jnp.log(float(_num_others(gram)))
  return collectives.global_mean(log_mean - _positive_mean(gram, axis_name), axis_name)


def info_nce_approximation(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """Second order of `info_nce` in k: −(N/Δl)·HSIC(Z,Y) + ½·E_z Var_z' k.

  As there, z' is never z itself: (N/Δl)·HSIC(Z,Y) = E_pos k − E k.
  """
  gram = hsic.gram_matrix(views, kernel, axis_name)
  count = _num_others(gram)
  mean = _without_itself(gram, 0, axis_name).sum(axis=(2, 3)) / count
  deviations = _without_itself(gram - mean[..., None, None], 0, axis_name)
  variance = jnp.sum(deviations**2, axis=(2, 3)) / count
  return collectives.global_mean(
    mean + variance / 2 - _positive_mean(gram, axis_name), axis_name
  )


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
  return 2 * view_scatter(views, axis_name) / (len(views) - 1)


def uniformity(views: chex.Array, axis_name: str | None = None) -> chex.Array:
  """log E exp(−2‖z−z'‖²) over all pairs of different features.

  Wang and Isola (2020), https://arxiv.org/abs/2005.10242, with t = 2.
  """
  gram = hsic.gram_matrix(views, kernels.Gaussian(scale=0.5), axis_name)
  sums = _without_itself(gram, 0, axis_name).sum(axis=(2, 3))
  return jnp.log(collectives.global_mean(sums / _num_others(gram), axis_name))


def _without_itself(gram, value, axis_name):
  """The Gram matrix with `value` where a feature meets itself."""
  is_same_view = jnp.eye(len(gram), dtype=bool)[:, None, :, None]
  return jnp.where(is_same_view & hsic.is_same_image(gram, axis_name), value, gram)


def _num_others(gram):
  """How many features there are in the global batch besides one."""
  return gram.shape[2] * gram.shape[3] - 1


def _positive_mean(gram, axis_name):
  """Mean of k(z, z⁺) over the other views z⁺ of the image of z: [M, b]."""
  others = _without_itself(gram, 0, axis_name)
  of_image = jnp.where(hsic.is_same_image(gram, axis_name), others, 0).sum(axis=(2, 3))
  return of_image / (len(gram) - 1)
