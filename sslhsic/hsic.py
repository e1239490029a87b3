"""The dependence measures of SSL-HSIC: HSIC(Z,Y), HSIC(Z,Z), and its relatives.

Z is the feature of a view, Y the identity of its image (Li et al., 2021). Sums run over
B images i with M views p each; φ is a feature map of the kernel, see `fourier`. From
features the cost is linear in the batch: each device sums over its own images, and one
`psum` of O(D²) numbers makes the result that of the global batch. The exact functions
are quadratic in M·B; they are what the estimators converge to.
"""

import chex
import jax
import jax.numpy as jnp

from sslhsic import kernels


def hsic_zy(phi: chex.Array, axis_name: str | None = None) -> chex.Array:
  """HSIC(Z,Y): how much a feature tells of which image it comes from.

  Σᵢ‖Σₚ φᵢᵖ‖² / (B·M·(M−1))  −  ‖Σᵢₚ φᵢᵖ‖² / (B·M)²

  as published: the terms p = l are kept (a constant if k(z,z) is one), the factor
  1/N is dropped.

  Args:
    phi: [M, b, D] features of this device's images.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    A scalar, float32, the same on every device.
  """
  num_views, _, _ = _check_views(phi)
  phi = phi.astype(jnp.float32)
  of_image = phi.sum(axis=0)
  within, total = _global_sum((jnp.sum(of_image**2), of_image.sum(axis=0)), axis_name)
  batch_size = _global_batch_size(phi, axis_name)
  return (
    within / (batch_size * num_views * (num_views - 1))
    - jnp.sum(total**2) / (batch_size * num_views) ** 2
  )


def hsic_zz(
  phi_a: chex.Array, phi_b: chex.Array, axis_name: str | None = None
) -> chex.Array:
  """HSIC(Z,Z): the kernelised variance of the features.

  ‖Σᵢₚ (φ_a − mean φ_a)(φ_b − mean φ_b)ᵀ‖²_F / (B·M)²

  Args:
    phi_a: [M, b, D] features of this device's images, from one draw.
    phi_b: [M, b, D'] features of the same images, from an independent draw.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    A scalar, float32, the same on every device.
  """
  _, _, covariance = _moments(phi_a, phi_b, axis_name)
  return jnp.sum(covariance**2)


def kernel_variance(
  phi_a: chex.Array, phi_b: chex.Array, axis_name: str | None = None
) -> chex.Array:
  """E_z Var_z' k(z, z'): the regulariser that InfoNCE implies, twice over.

  It is HSIC(Z,Z) + Var_z E_z' k, so never below HSIC(Z,Z) (Li et al., 2021). With C the
  cross-covariance of φ_a and φ_b, and m their means,

  ‖C‖²_F + m_aᵀ C m_b

  Args:
    phi_a: [M, b, D] features of this device's images, from one draw.
    phi_b: [M, b, D'] features of the same images, from an independent draw.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    A scalar, float32, the same on every device.
  """
  mean_a, mean_b, covariance = _moments(phi_a, phi_b, axis_name)
  of_means = jnp.matmul(
    mean_a, jnp.matmul(covariance, mean_b, precision='highest'), precision='highest'
  )
  return jnp.sum(covariance**2) + of_means


def exact_hsic_zy(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """What `hsic_zy` estimates, from all pairs: [M, b, d] -> scalar, float32."""
  num_views, _, _ = _check_views(views)
  gram = gram_matrix(views, kernel, axis_name)
  of_image = jnp.where(is_same_image(gram, axis_name), gram, 0).sum(axis=(2, 3))
  return _global_mean(of_image.mean() / (num_views - 1) - gram.mean(), axis_name)


def exact_hsic_zz(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """Tr(KHKH)/(B·M)², what `hsic_zz` estimates: [M, b, d] -> scalar, float32."""
  _check_views(views)
  gram = gram_matrix(views, kernel, axis_name)
  means = gram.mean(axis=(2, 3))
  of_others = _gather_images(means, axis_name)[None, None]
  centred = gram - means[:, :, None, None] - of_others + of_others.mean()
  return _global_mean(jnp.mean(centred**2), axis_name)


def exact_kernel_variance(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """What `kernel_variance` estimates, from all pairs: [M, b, d] -> scalar, float32."""
  _check_views(views)
  gram = gram_matrix(views, kernel, axis_name)
  return _global_mean(gram.var(axis=(2, 3)).mean(), axis_name)


def gram_matrix(
  views: chex.Array, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """k of each of this device's features with each of the global batch.

  So the work of a device, quadratic in the batch, falls with the number of devices.

  Args:
    views: [M, b, d] features of this device's images.
    kernel: k.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    [M, b, M, B], float32.
  """
  num_views, local_batch, dim = views.shape
  everything = _gather_images(views, axis_name)
  rows = kernel(views.reshape(-1, dim), everything.reshape(-1, dim))
  return rows.reshape(num_views, local_batch, num_views, -1)


def is_same_image(gram: chex.Array, axis_name: str | None = None) -> chex.Array:
  """Which entries of `gram_matrix` are of two views of one image: [1, b, 1, B]."""
  local_batch, batch_size = gram.shape[1], gram.shape[3]
  image = jnp.arange(local_batch)
  if axis_name:
    image += jax.lax.axis_index(axis_name) * local_batch
  return (image[:, None] == jnp.arange(batch_size)[None])[None, :, None, :]


def unbiased_hsic(gram_x: chex.Array, gram_y: chex.Array) -> chex.Array:
  """The unbiased estimator of HSIC(X,Y) from n samples, of any two kernels.

  [Tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1/((n−1)(n−2)) − 2/(n−2)·1ᵀK̃L̃1] / (n(n−3))

  where K̃ and L̃ are the Gram matrices with zeros on the diagonal (Song et al., 2012,
  "Feature selection via dependence maximization"). For evaluation: it may be negative,
  and it needs independent samples, such as embeddings and labels of a test set.

  Args:
    gram_x: [n, n] Gram matrix K of the samples of X.
    gram_y: [n, n] Gram matrix L of the samples of Y.

  Returns:
    A scalar, float32.

  Raises:
    ValueError: there are fewer than four samples.
  """
  chex.assert_rank([gram_x, gram_y], 2)
  chex.assert_equal_shape([gram_x, gram_y, gram_x.T])
  n = len(gram_x)
  if n < 4:
    raise ValueError(f'{n} samples; the unbiased estimator needs 4 or more')
  x, y = (_without_diagonal(gram) for gram in (gram_x, gram_y))
  trace = jnp.sum(x * y.T)
  sums = jnp.sum(x) * jnp.sum(y) / ((n - 1) * (n - 2))
  product = jnp.sum(x.sum(axis=0) * y.sum(axis=1))
  return (trace + sums - 2 / (n - 2) * product) / (n * (n - 3))


def _without_diagonal(gram: chex.Array) -> chex.Array:
  is_diagonal = jnp.eye(len(gram), dtype=bool)
  return jnp.where(is_diagonal, 0, gram.astype(jnp.float32))


def _moments(
  phi_a: chex.Array, phi_b: chex.Array, axis_name: str | None
) -> tuple[chex.Array, chex.Array, chex.Array]:
  """Means [D], [D'] and cross-covariance [D, D'] of all features of both draws."""
  num_views, _, _ = _check_views(phi_a)
  chex.assert_equal_shape_prefix([phi_a, phi_b], 2)
  a, b = (phi.reshape(-1, phi.shape[-1]).astype(jnp.float32) for phi in (phi_a, phi_b))
  count = _global_batch_size(phi_a, axis_name) * num_views
  sum_a, sum_b, products = _global_sum(
    (a.sum(axis=0), b.sum(axis=0), jnp.matmul(a.T, b, precision='highest')), axis_name
  )
  mean_a, mean_b = sum_a / count, sum_b / count
  return mean_a, mean_b, products / count - jnp.outer(mean_a, mean_b)


def _check_views(views: chex.Array) -> tuple[int, int, int]:
  chex.assert_rank(views, 3)
  if views.shape[0] < 2:
    raise ValueError(
      f'features have shape {views.shape}, so {views.shape[0]} view of each image; '
      'HSIC(Z,Y) compares views: give [M, B, D] with M of 2 or more'
    )
  return views.shape


def _global_batch_size(views: chex.Array, axis_name: str | None) -> int:
  return views.shape[1] * (jax.lax.axis_size(axis_name) if axis_name else 1)


def _global_sum(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
  return jax.lax.psum(tree, axis_name) if axis_name else tree


def _global_mean(x: chex.Array, axis_name: str | None) -> chex.Array:
  return jax.lax.pmean(x, axis_name) if axis_name else x


def _gather_images(x: chex.Array, axis_name: str | None) -> chex.Array:
  """[M, b, ...] -> [M, B, ...], in the order of the global batch."""
  return jax.lax.all_gather(x, axis_name, axis=1, tiled=True) if axis_name else x
