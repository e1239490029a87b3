"""The dependence measures of SSL-HSIC: HSIC(Z,Y), HSIC(Z,Z), and its relatives.

Z is the feature of a view, Y the identity of its image (Li et al., 2021). Sums run over
B images i with M views p each; φ is a feature map of the kernel, see `fourier`. From
features the cost is linear in the batch: each device sums over its own images, and one
`psum` of O(D²) numbers makes the result that of the global batch. The exact functions
are quadratic in M·B; they are what the estimators converge to.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives, kernels

# [M, b, d], or several such arrays that together hold the M views.
Views: TypeAlias = 'chex.Array | Sequence[chex.Array]'

# Entries of the Gram matrix that are computed at once, 4 bytes for each array of them.
# An accelerator is idle between blocks, so its blocks are larger.
_BLOCK_ENTRIES = {'cpu': 2**22, 'accelerator': 2**24}


def hsic_zy(phi: chex.Array, axis_name: str | None = None) -> chex.Array:
  """HSIC(Z,Y): the dependence of a feature on the identity of its image.

  Σᵢ‖Σₚ φᵢᵖ‖² / (B·M·(M−1))  −  ‖Σᵢₚ φᵢᵖ‖² / (B·M)²

  as published: the terms p = l are kept (a constant if k(z,z) is one), the factor
  1/N is dropped.

  Args:
    phi: [M, b, D] features of this device's images.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    A scalar, float32, the same on every device.
  """
  num_views, _ = check_views(phi)
  phi = phi.astype(jnp.float32)
  # Σₚₗ ⟨φᵢᵖ, φᵢˡ⟩ = ‖Σₚ φᵢᵖ‖²: norms of sums replace sums over pairs.
  of_image = phi.sum(axis=0)
  within, total = collectives.global_sum(
    (jnp.sum(of_image**2), of_image.sum(axis=0)), axis_name
  )
  batch_size = collectives.global_batch_size(phi.shape[1], axis_name)
  return within / (batch_size * num_views * (num_views - 1)) - jnp.sum(
    (total / (batch_size * num_views)) ** 2
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


class Terms(NamedTuple):
  """The dependence measures that a loss is made of, float32 scalars.

  Attributes:
    hsic_zy: HSIC(Z,Y).
    hsic_zz: HSIC(Z,Z).
    kernel_variance: E_z Var_z' k(z, z').
  """

  hsic_zy: chex.Array
  hsic_zz: chex.Array
  kernel_variance: chex.Array


def from_features(
  phi_a: chex.Array, phi_b: chex.Array, axis_name: str | None = None
) -> Terms:
  """All terms from two independent draws of features, [M, b, D] and [M, b, D']."""
  return Terms(
    hsic_zy(phi_a, axis_name),
    hsic_zz(phi_a, phi_b, axis_name),
    kernel_variance(phi_a, phi_b, axis_name),
  )


def exact(views: Views, kernel: kernels.Kernel, axis_name: str | None = None) -> Terms:
  """All terms from all pairs of features: what the estimators converge to.

  With μ(x) the mean of k(x, y) over all y,

    HSIC(Z,Y) = Σᵢ Σₚₗ k(zᵢᵖ, zᵢˡ) / (B·M·(M−1)) − E k
    HSIC(Z,Z) = E (k(x, y) − μ(x) − μ(y) + E k)² = E k² − 2·E μ² + (E k)²
    E_z Var_z' k = E k² − E μ²

  in one pass over the Gram matrix. A constant near the mean of k is subtracted from k
  first: no term depends on it, and float32 keeps the digits of what is left.

  Args:
    views: [M, b, d] features of this device's images, or a sequence of such arrays.
    kernel: k.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    The terms, the same on every device.
  """
  num_views, _ = check_views(views)
  offset = collectives.mean_over_devices(
    jax.lax.stop_gradient(_mean_with_first(views, kernel, axis_name)), axis_name
  )

  def moments(gram, is_same_image, _):
    gram = gram - offset
    within = jnp.where(is_same_image, gram, 0).sum()
    return within, gram.mean(), jnp.mean(gram**2)

  within, mean, square = map_rows(moments, views, kernel, axis_name)
  within, mean, mean_square, square = collectives.mean_over_devices(
    (within.mean(), mean.mean(), jnp.mean(mean**2), square.mean()), axis_name
  )
  return Terms(
    # Undo the offset c: M·c/(M − 1) from views of one image, less c from the mean.
    hsic_zy=within / (num_views - 1) - mean + offset / (num_views - 1),
    hsic_zz=square - 2 * mean_square + mean**2,
    kernel_variance=square - mean_square,
  )


def exact_hsic_zy(
  views: Views, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """HSIC(Z,Y) from all pairs, see `exact`."""
  return exact(views, kernel, axis_name).hsic_zy


def exact_hsic_zz(
  views: Views, kernel: kernels.Kernel, axis_name: str | None = None
) -> chex.Array:
  """HSIC(Z,Z) = Tr(KHKH)/(B·M)² from all pairs, see `exact`."""
  return exact(views, kernel, axis_name).hsic_zz


def map_rows(
  function: Callable[[chex.Array, chex.Array, chex.Array], chex.ArrayTree],
  views: Views,
  kernel: kernels.Kernel,
  axis_name: str | None = None,
) -> chex.ArrayTree:
  """Applies a function to every row of the Gram matrix without keeping the matrix.

  Rows are this device's features, columns those of the global batch: the work of a
  device falls with the number of devices. A block of rows is computed at a time, and
  again in the backward pass, so that memory is linear in the batch.

  Args:
    function: of one row: k with all features [M·B], which of them are views of the same
      image [M·B], and which one is the feature itself [M·B].
    views: [M, b, d] features of this device's images, or a sequence of such arrays.
      Of several, those that need no gradient cost no backward pass.
    kernel: k.
    axis_name: the mapped axis over which the batch is spread, if it is.

  Returns:
    What the function returns, with leading axes [M, b].
  """
  parts = parts_of(views)
  num_views, local_batch = check_views(views)
  dim = parts[0].shape[-1]
  columns = [
    collectives.gather_images(part, axis_name).reshape(-1, dim) for part in parts
  ]
  batch_size = columns[0].shape[0] // parts[0].shape[0]
  # Feature (view, image) has the index view·B + image, so index mod B is its image.
  column_index = jnp.arange(num_views * batch_size)
  image = collectives.image_offset(local_batch, axis_name) + jnp.arange(local_batch)

  def of_row(args):
    row, index = args
    gram = jnp.concatenate([kernel(row[None], part)[0] for part in columns])
    is_same_image = column_index % batch_size == index % batch_size
    return function(gram, is_same_image, column_index == index)

  results, first_view = [], 0
  for part in parts:
    view = first_view + jnp.arange(len(part))
    index = view[:, None] * batch_size + image[None]
    rows = part.reshape(-1, dim), index.reshape(-1)
    result = map_in_blocks(of_row, rows, len(column_index))
    shape = part.shape[:2]
    results.append(jax.tree.map(lambda x, s=shape: x.reshape(s + x.shape[1:]), result))
    first_view += len(part)
  return jax.tree.map(lambda *x: jnp.concatenate(x), *results)


def map_in_blocks(
  function: Callable[[chex.ArrayTree], chex.ArrayTree],
  rows: chex.ArrayTree,
  num_columns: int,
) -> chex.ArrayTree:
  """Applies a function to every row of a matrix that is never there as a whole.

  A block of rows is computed at a time, and again in the backward pass.

  Args:
    function: of one row, of which it computes the entries.
    rows: what it is given for each row, [n, ...].
    num_columns: entries of a row, which decide how many rows a block has.

  Returns:
    What the function returns, [n, ...].
  """
  num_rows = len(jax.tree.leaves(rows)[0])
  rows_at_once = max(1, _BLOCK_ENTRIES[backend()] // num_columns)
  return jax.lax.map(
    jax.checkpoint(function), rows, batch_size=min(rows_at_once, num_rows)
  )


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
  # Tr(K̃L̃), 1ᵀK̃1·1ᵀL̃1 and 1ᵀK̃L̃1 from sums of entries, at a cost of n², not n³.
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
  num_views, _ = check_views(phi_a)
  chex.assert_equal_shape_prefix([phi_a, phi_b], 2)
  a, b = (phi.reshape(-1, phi.shape[-1]).astype(jnp.float32) for phi in (phi_a, phi_b))
  count = collectives.global_batch_size(phi_a.shape[1], axis_name) * num_views
  # E abᵀ − E a·E bᵀ: unlike centring first, it needs a single exchange.
  sum_a, sum_b, products = collectives.global_sum(
    (a.sum(axis=0), b.sum(axis=0), jnp.matmul(a.T, b, precision='highest')), axis_name
  )
  mean_a, mean_b = sum_a / count, sum_b / count
  return mean_a, mean_b, products / count - jnp.outer(mean_a, mean_b)


def backend() -> str:
  """'cpu' or 'accelerator': where programs run that name no device."""
  return 'cpu' if jax.default_backend() == 'cpu' else 'accelerator'


def check_views(views: Views) -> tuple[int, int]:
  """M and b of features [M, b, d], or of a sequence of such arrays.

  Raises:
    AssertionError: the arrays do not have three axes, or not the same b and d.
    ValueError: there is only one view.
  """
  parts = parts_of(views)
  chex.assert_rank(parts, 3)
  chex.assert_equal_shape_suffix(parts, 2)
  num_views = sum(len(part) for part in parts)
  if num_views < 2:
    raise ValueError(
      f'features have shape {parts[0].shape}, so {num_views} view of each image; '
      'HSIC(Z,Y) compares views: give [M, B, D] with M of 2 or more'
    )
  return num_views, parts[0].shape[1]


def parts_of(views: Views) -> list[chex.Array]:
  """The arrays that together hold the views."""
  return list(views) if isinstance(views, list | tuple) else [views]


def _mean_with_first(views, kernel, axis_name):
  """Mean of k between the first feature of the global batch and all others."""
  parts = [collectives.gather_images(part, axis_name) for part in parts_of(views)]
  first = parts[0][0, :1]
  rows = [kernel(first, part.reshape(-1, part.shape[-1])) for part in parts]
  return jnp.concatenate(rows, axis=1).mean()
