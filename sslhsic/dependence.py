"""Dependence between two variables: HSIC, CKA and conditional HSIC, of any kernels.

A variable is given by samples: features [b, d], or integer labels [b], whose kernel is
1[y = y'], the linear kernel of one-hot vectors. With K and L the Gram matrices of n
samples of X and Y, and H = I − 11ᵀ/n,

  HSIC(X,Y) = Tr(KHLH) / n²                      biased (Gretton et al., 2005)
  CKA(X,Y)  = HSIC(X,Y) / √(HSIC(X,X)·HSIC(Y,Y))  (Kornblith et al., 2019)

A block of rows is computed at a time, and again in the backward pass: memory is linear
in n, work quadratic, and a device computes the rows of its own samples. Results count
the samples of all devices. `block_hsic` is linear in work, too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import collectives, kernels, registry
from sslhsic import hsic as hsic_lib

KERNELS = {
  'linear': kernels.Linear,
  'gaussian': kernels.Gaussian,
  'inverse_multiquadric': kernels.InverseMultiquadric,
  'laplace': kernels.Laplace,
}

_LINEAR = kernels.Linear()
# Statistics of permutations that differ by no more, relatively, are equal: rounding.
_ROUNDING = 1e-5


class _Variable(NamedTuple):
  """A variable, and how its Gram matrix is computed.

  Attributes:
    rows: samples of this device, [b, ...].
    columns: samples of all devices, [n, ...].
    gram: of one row and the columns, the entries [n].
    offset: a constant near the entries. Nothing depends on it, and float32 keeps the
      digits of what is left.
  """

  rows: chex.ArrayTree
  columns: chex.ArrayTree
  gram: Callable[[Any, Any], chex.Array]
  offset: chex.Array


def hsic(
  x: chex.Array,
  y: chex.Array,
  kernel_x: kernels.Kernel = _LINEAR,
  kernel_y: kernels.Kernel = _LINEAR,
  *,
  unbiased: bool = False,
  axis_name: str | None = None,
) -> chex.Array:
  """HSIC(X,Y) from all pairs of samples.

  Args:
    x: [b, d] features, or [b] integer labels, of this device's samples.
    y: the same of Y, in the same order.
    kernel_x: kernel of features x; labels have their own.
    kernel_y: kernel of features y.
    unbiased: whether to use the estimator of Song et al. (2012), see
      `hsic.unbiased_hsic`. It may be negative.
    axis_name: the mapped axis over which the samples are spread, if they are.

  Returns:
    A scalar, float32, the same on every device.

  Raises:
    AssertionError: x or y is neither [b, d] nor integers [b], or they differ in b.
    ValueError: there are fewer than four samples, and `unbiased`.
  """
  variables = _variables((x, y), (kernel_x, kernel_y), axis_name)
  return _of_pairs(variables, [(0, 1)], unbiased, axis_name)[0]


def cka(
  x: chex.Array,
  y: chex.Array,
  kernel_x: kernels.Kernel = _LINEAR,
  kernel_y: kernels.Kernel = _LINEAR,
  *,
  unbiased: bool = False,
  axis_name: str | None = None,
) -> chex.Array:
  """Centred kernel alignment, HSIC(X,Y) / √(HSIC(X,X)·HSIC(Y,Y)).

  With linear kernels it does not change if features are rotated, scaled or moved. The
  biased one approaches 1 where there are more dimensions than samples, whatever the
  features.

  Arguments and errors as for `hsic`.

  Returns:
    A scalar, float32, the same on every device; from 0 to 1 unless `unbiased`. NaN if
    HSIC(X,X) or HSIC(Y,Y) is not positive, such as for features that are all alike.
  """
  variables = _variables((x, y), (kernel_x, kernel_y), axis_name)
  pairs = [(0, 1), (0, 0), (1, 1)]
  both, of_x, of_y = _of_pairs(variables, pairs, unbiased, axis_name)
  # The product of two small numbers can be too small for float32.
  return both / (jnp.sqrt(of_x) * jnp.sqrt(of_y))


def block_hsic(
  x: chex.Array,
  y: chex.Array,
  kernel_x: kernels.Kernel = _LINEAR,
  kernel_y: kernels.Kernel = _LINEAR,
  *,
  block_size: int,
  axis_name: str | None = None,
) -> chex.Array:
  """HSIC(X,Y) from pairs within blocks of T samples: n·T pairs in place of n².

  The mean of the unbiased estimator over blocks (Zhang et al., 2018, "Large-scale
  kernel methods for independence testing"). Of independent samples its expectation is
  HSIC(X,Y) of their law, as with the unbiased estimator from all pairs, and its
  variance is larger by about n/T. Samples have to be in random order.

  Args:
    x, y, kernel_x, kernel_y: see `hsic`.
    block_size: T, 4 or more; divides the samples of each device.
    axis_name: the mapped axis over which the samples are spread, if they are. The
      number of devices does not change the result.

  Returns:
    A scalar, float32, the same on every device.

  Raises:
    AssertionError: see `hsic`.
    ValueError: there are fewer than four samples in a block, or blocks do not divide
      the samples of a device.
  """
  count = _check(x, y)
  if block_size < 4 or count % block_size:
    raise ValueError(
      f'block_size is {block_size}, for {count} samples on each device; use 4 or more, '
      'and a divisor of the samples'
    )
  variables = (x, kernel_x), (y, kernel_y)
  in_blocks = [x.reshape(-1, block_size, *x.shape[1:]) for x, _ in variables]

  @jax.checkpoint
  def of_block(block):
    grams = [
      _gram_of(samples, kernel)(samples, samples)
      for samples, (_, kernel) in zip(block, variables, strict=True)
    ]
    return hsic_lib.unbiased_hsic(*grams)

  return collectives.global_mean(jax.lax.map(of_block, in_blocks), axis_name)


class PermutationTest(NamedTuple):
  """Test of independence.

  Attributes:
    statistic: HSIC(X,Y).
    p_value: (1 + #{permutations whose HSIC is not smaller}) / (1 + permutations). Under
      independence it is at most α with probability α or less, for every α.
    permuted: [permutations] HSIC with the samples of Y in random order.
  """

  statistic: chex.Array
  p_value: chex.Array
  permuted: chex.Array


def permutation_test(
  rng: chex.PRNGKey,
  x: chex.Array,
  y: chex.Array,
  kernel_x: kernels.Kernel = _LINEAR,
  kernel_y: kernels.Kernel = _LINEAR,
  *,
  num_permutations: int = 999,
  unbiased: bool = False,
  axis_name: str | None = None,
) -> PermutationTest:
  """Tests whether X and Y are independent, by permutations of the samples of Y.

  A permutation takes the time of `hsic`. CKA differs from HSIC by a factor that no
  permutation changes, so CKA has the same p-value.

  Args:
    rng: a JAX key, the same on every device.
    x, y, kernel_x, kernel_y, unbiased, axis_name: see `hsic`.
    num_permutations: the smallest p-value is 1/(1 + permutations).
  """
  of_x, of_y = _variables((x, y), (kernel_x, kernel_y), axis_name)
  first = collectives.image_offset(len(x), axis_name)

  def statistic(order):
    columns = of_y.columns[order]
    rows = jax.lax.dynamic_slice_in_dim(columns, first, len(y))
    permuted = of_y._replace(rows=rows, columns=columns)
    return _of_pairs([of_x, permuted], [(0, 1)], unbiased, axis_name)[0]

  count = len(of_y.columns)
  observed = statistic(jnp.arange(count))
  permuted = jax.lax.map(
    lambda key: statistic(jax.random.permutation(key, count)),
    jax.random.split(rng, num_permutations),
  )
  as_large = jnp.sum(permuted >= observed - _ROUNDING * jnp.abs(observed))
  p_value = (1 + as_large).astype(jnp.float32) / (1 + num_permutations)
  return PermutationTest(observed, p_value, permuted)


class Heldout(NamedTuple):
  """Samples that a regression is fitted on, the same on every device.

  Attributes:
    a: [m, d] features, or [m] integer labels.
    y: the same of Y.
  """

  a: chex.Array
  y: chex.Array


def conditional_hsic(
  z: chex.Array,
  a: chex.Array,
  y: chex.Array,
  heldout: Heldout,
  kernel_z: kernels.Kernel = _LINEAR,
  kernel_a: kernels.Kernel = _LINEAR,
  kernel_y: kernels.Kernel = _LINEAR,
  *,
  ridge: float,
  unbiased: bool = False,
  axis_name: str | None = None,
) -> chex.Array:
  """Dependence of Z on A given Y, as CIRCE (Pogodin et al., 2023) measures it.

  HSIC of Z, in its kernel, with the residuals of A given Y, in the kernel

    ⟨ψ(a) − μ(y), ψ(a') − μ(y')⟩ · k(y, y')

  ψ is the feature map of the kernel of A, and μ the ridge regression of ψ(A) on Y,
  fitted on held-out samples: μ(y) = Σⱼ wⱼ ψ(a'ⱼ), w = (K_Y'Y' + λI)⁻¹ k_Y'(y)
  (https://arxiv.org/abs/2212.08645). For labels Y, μ(y) is the mean of the class,
  times n_y/(n_y + λ). It is zero, up to sampling, if Z and A are independent given Y.
  Memory is m² and n·m numbers, of n samples on all devices.

  Args:
    z: [b, d] features, or [b] integer labels, of this device's samples.
    a, y: the same of A and Y.
    heldout: m other samples of A and Y.
    kernel_z, kernel_a, kernel_y: kernels of features.
    ridge: λ, positive.
    unbiased, axis_name: see `hsic`.

  Returns:
    A scalar, float32, the same on every device.

  Raises:
    AssertionError: see `hsic`.
    ValueError: λ is not positive.
  """
  _check(z, y)
  _check(a, y)
  _check(*heldout)
  if not ridge > 0:
    raise ValueError(f'ridge is {ridge}; use a positive number')
  (of_z,) = _variables((z,), (kernel_z,), axis_name)
  of_a = _residuals(a, y, heldout, kernel_a, kernel_y, ridge, axis_name)
  return _of_pairs([of_z, of_a], [(0, 1)], unbiased, axis_name)[0]


def median_scale(
  x: chex.Array, *, max_samples: int = 1000, axis_name: str | None = None
) -> chex.Array:
  """The median heuristic: the median distance ‖xᵢ − xⱼ‖ of two unequal samples.

  As in `kernels.Gaussian(median_scale(x))`. Equal samples, such as the many zeros of
  some quantities, would make it 0, and the kernel one that knows equality alone.

  Args:
    x: [b, d] features of this device's samples.
    max_samples: of more samples, so many at equal steps are compared.
    axis_name: the mapped axis over which the samples are spread, if they are.

  Returns:
    A float32 scalar without gradient, the same on every device; 0 if all are equal.

  Raises:
    ValueError: there is only one sample.
  """
  chex.assert_rank(x, 2)
  everything = _gather(jax.lax.stop_gradient(x), axis_name)
  if len(everything) < 2:
    raise ValueError('one sample has no distances; give two or more')
  step = -(-len(everything) // max_samples)
  some = everything[::step].astype(jnp.float32)
  some -= some.mean(axis=0, keepdims=True)  # Distances keep more digits.
  rows, columns = np.triu_indices(len(some), 1)
  distances = jnp.sqrt(kernels.squared_distances(some, some))
  # Distances of equal samples are rounding errors, not 0.
  unequal = jnp.where(
    _are_equal(some)[rows, columns], jnp.nan, distances[rows, columns]
  )
  return jnp.nan_to_num(jnp.nanmedian(unequal))


@jax.jit
def _are_equal(x: chex.Array) -> chex.Array:
  """Which samples [b, d] are equal, [b, b] bool."""
  return jnp.all(x[:, None] == x[None], axis=-1)


def kernel_of(
  name: str, x: chex.Array, scale: float | None = None, axis_name: str | None = None
) -> kernels.Kernel:
  """A kernel by name, for features.

  Args:
    name: one of `KERNELS`.
    x: [b, d] features of this device's samples, or labels, whose kernel has no scale.
    scale: c; None: 1 for 'linear', else `median_scale` of the features.
    axis_name: the mapped axis over which the samples are spread, if they are.

  Raises:
    ValueError: there is no such kernel.
  """
  kernel = registry.entry('kernel', KERNELS, name)
  if scale is None and (name == 'linear' or x.ndim == 1):
    return kernel()
  # Equal features have no distances; any scale does for them.
  if scale is None:
    scale = jnp.maximum(median_scale(x, axis_name=axis_name), 1e-6)
  return kernel(scale)


def check_kernel(name: str, scale: float | None) -> None:
  """Checks the settings of a kernel, see `kernel_of`.

  Raises:
    ValueError: there is no such kernel, or the scale is not positive.
  """
  registry.entry('kernel', KERNELS, name)
  if scale is not None and not scale > 0:
    raise ValueError(f'scale is {scale}; use a positive number, or None')


def _check(x: chex.Array, y: chex.Array) -> int:
  """b of samples of two variables."""
  for samples in (x, y):
    if jnp.issubdtype(samples.dtype, jnp.integer):
      chex.assert_rank(samples, 1)
    else:
      chex.assert_rank(samples, 2)
  chex.assert_equal_shape_prefix([x, y], 1)
  return len(x)


def _gram_of(
  samples: chex.Array, kernel: kernels.Kernel
) -> Callable[[chex.Array, chex.Array], chex.Array]:
  """The kernel of features, or of integer labels: [n, ...], [m, ...] -> [n, m]."""
  if samples.ndim == 2:
    return kernel
  return lambda x, y: (x[:, None] == y[None, :]).astype(jnp.float32)


def _gather(samples: chex.Array, axis_name: str | None) -> chex.Array:
  """Samples of all devices: [b, ...] -> [n, ...]."""
  if not axis_name:
    return samples
  return jax.lax.all_gather(samples, axis_name, tiled=True)


def _variables(
  samples: Sequence[chex.Array],
  of_samples: Sequence[kernels.Kernel],
  axis_name: str | None,
) -> list[_Variable]:
  _check(samples[0], samples[-1])
  return [
    _variable(x, kernel, axis_name)
    for x, kernel in zip(samples, of_samples, strict=True)
  ]


def _variable(
  samples: chex.Array, kernel: kernels.Kernel, axis_name: str | None
) -> _Variable:
  samples = jnp.asarray(samples)
  if samples.ndim == 2:
    # HSIC does not depend on where the origin is, for the kernels that there are: close
    # to it, float32 keeps the most digits.
    samples = samples.astype(jnp.float32)
    mean = collectives.mean_over_devices(samples.mean(axis=0, keepdims=True), axis_name)
    samples = samples - mean
  columns = _gather(samples, axis_name)
  of_two = _gram_of(samples, kernel)
  gram = lambda row, columns: of_two(row[None], columns)[0]
  return _with_offset(samples, columns, gram, axis_name)


def _with_offset(
  rows: chex.ArrayTree,
  columns: chex.ArrayTree,
  gram: Callable[[Any, Any], chex.Array],
  axis_name: str | None,
) -> _Variable:
  first = gram(jax.tree.map(lambda x: x[0], rows), columns).mean()
  # The same on every device, although each has another first row.
  offset = collectives.mean_over_devices(jax.lax.stop_gradient(first), axis_name)
  return _Variable(rows, columns, gram, offset)


def _residuals(
  a: chex.Array,
  y: chex.Array,
  heldout: Heldout,
  kernel_a: kernels.Kernel,
  kernel_y: kernels.Kernel,
  ridge: float,
  axis_name: str | None,
) -> _Variable:
  """Residuals of A given Y with the kernel of `conditional_hsic`.

  ⟨ψ(a) − μ(y), ψ(a') − μ(y')⟩ = k(a, a') − g·w' − w·g' + w·K·w', where g = k(A', a) and
  K = k(A', A') are of the held-out samples A'.
  """
  of_a, of_y = _gram_of(a, kernel_a), _gram_of(y, kernel_y)
  multiply = lambda x, y: jnp.matmul(x, y, precision='highest')
  regularised = of_y(heldout.y, heldout.y) + ridge * jnp.eye(len(heldout.y))
  # [b, m] each.
  w = jax.scipy.linalg.solve(regularised, of_y(heldout.y, y), assume_a='pos').T
  g = of_a(a, heldout.a)
  difference = multiply(w, of_a(heldout.a, heldout.a)) - g
  rows = {'a': a, 'y': y, 'w': w, 'g': g, 'difference': difference}
  columns = {name: _gather(rows[name], axis_name) for name in ('a', 'y', 'w', 'g')}

  def gram(row, columns):
    products = multiply(columns['w'], row['difference']) - multiply(
      columns['g'], row['w']
    )
    residuals = of_a(row['a'][None], columns['a'])[0] + products
    return residuals * of_y(row['y'][None], columns['y'])[0]

  return _with_offset(rows, columns, gram, axis_name)


def _of_pairs(
  variables: Sequence[_Variable],
  pairs: Sequence[tuple[int, int]],
  unbiased: bool,
  axis_name: str | None,
) -> list[chex.Array]:
  """HSIC of pairs of variables, given by their numbers, in one pass.

  With k̄ᵢ and l̄ᵢ the means of rows,

    biased     E kl − 2·Eᵢ k̄ᵢl̄ᵢ + E k·E l
    unbiased   (n−1)/(n−3) · (E kl − 2(n−1)/(n−2)·Eᵢ k̄ᵢl̄ᵢ + n/(n−2)·E k·E l)

  the unbiased one with means over j ≠ i, equal to `hsic.unbiased_hsic`.
  """
  count = len(jax.tree.leaves(variables[0].columns)[0])
  if unbiased and count < 4:
    raise ValueError(f'{count} samples; the unbiased estimator needs 4 or more')
  num_rows = len(jax.tree.leaves(variables[0].rows)[0])
  index = collectives.image_offset(num_rows, axis_name) + jnp.arange(num_rows)
  column_index = jnp.arange(count)

  def of_row(args):
    index, rows = args
    is_counted = (column_index != index) | (not unbiased)
    grams = [
      jnp.where(is_counted, x.gram(row, x.columns) - x.offset, 0)
      for x, row in zip(variables, rows, strict=True)
    ]
    mean = lambda entries: entries.sum() / (count - unbiased)
    products = [mean(grams[i] * grams[j]) for i, j in pairs]
    return products, [mean(gram) for gram in grams]

  rows = index, [x.rows for x in variables]
  products, row_means = hsic_lib.map_in_blocks(of_row, rows, count)
  cross = [jnp.mean(row_means[i] * row_means[j]) for i, j in pairs]
  products, cross, means = collectives.mean_over_devices(
    jax.tree.map(jnp.mean, (products, cross, row_means)), axis_name
  )
  n = count
  factor, of_cross, of_means = (
    ((n - 1) / (n - 3), 2 * (n - 1) / (n - 2), n / (n - 2)) if unbiased else (1, 2, 1)
  )
  return [
    factor * (product - of_cross * both + of_means * means[i] * means[j])
    for product, both, (i, j) in zip(products, cross, pairs, strict=True)
  ]
