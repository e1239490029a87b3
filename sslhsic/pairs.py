"""HSIC from pairs of features: linear in the batch, without random numbers.

A kernel of unit-norm features is a function f of their inner product t = ⟨x, y⟩. Around
t₀ = ‖z̄‖², the mean of t over all pairs (z̄ the mean feature), it is

  f(t) = f(t₀) + a·(t − t₀) + r(t),   a = f′(t₀)

The mean of the linear part over all pairs is known from z̄ alone. What is left, r, is
small unless x and y have much in common. There are three kinds of pairs:

  1. views of one image: B·M² pairs, all of them computed;
  2. different images, linear part: exact, from z̄;
  3. different images, the rest: a sample. The order of a batch is random, so fixed
     pairs do: cut the batch into blocks of T images, and compare every image of block
     2k with every image of block 2k+1, all M² pairs of views.

With q(x, y) = a·⟨x − z̄, y − z̄⟩ + r(x, y), of which only r has a mean ρ(x) over y,

  HSIC(Z,Y) = Σᵢ Σₚₗ k(zᵢᵖ, zᵢˡ) / (B·M·(M−1)) − f(t₀) − E r
  HSIC(Z,Z) = E q² − 2·E ρ² + (E ρ)²
  E_z Var_z' k = HSIC(Z,Z) + Var (a·⟨x, z̄⟩ + ρ(x))

ρ(x)² is the square of a sample mean less its sampling variance. docs/estimator.md
derives this, and says what is unbiased.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sslhsic import collectives, hsic, kernels

# Images that are compared at once, unless a pair of blocks has more. Few fit into the
# cache of a CPU; on an accelerator a group takes longer to start than to compute.
_IMAGES_AT_ONCE = {'cpu': 256, 'accelerator': 8192}


class _Sums(NamedTuple):
  """Sums over pairs and features that devices exchange.

  Attributes:
    same_kernel: k, over the pairs of views of one image.
    same_square: q², or what it has beyond the linear part, over these pairs.
    same_extra: the extra function, over these pairs.
    other_square: the same as `same_square`, over the pairs of different images that are
      compared.
    other_extra: the extra function, over these pairs.
    mean: ρ, over features.
    mean_square: ρ², over features.
    linear_square: λ², over features, λ(x) = a·⟨x − z̄, z̄⟩.
    product: λ·ρ, over features.
  """

  same_kernel: chex.Array
  same_square: chex.Array
  same_extra: chex.Array
  other_square: chex.Array
  other_extra: chex.Array
  mean: chex.Array
  mean_square: chex.Array
  linear_square: chex.Array
  product: chex.Array


class _Tangent(NamedTuple):
  """f and its tangent at t₀, the same for all pairs.

  Attributes:
    at: t₀.
    value: f(t₀).
    slope: a = f′(t₀).
    centre: z̄, [d].
    centre_square: ‖z̄‖².
  """

  at: chex.Array
  value: chex.Array
  slope: chex.Array
  centre: chex.Array
  centre_square: chex.Array


def estimate(
  views: hsic.Views,
  kernel: kernels.Kernel,
  *,
  block_size: int,
  covariance: bool = False,
  axis_name: str | None = None,
  extra: Callable[[chex.Array], chex.Array] = jnp.zeros_like,
) -> tuple[hsic.Terms, chex.Array]:
  """HSIC(Z,Y), HSIC(Z,Z) and E_z Var_z' k, and the mean of one more function of pairs.

  Over random orders of the batch, HSIC(Z,Y), its gradient, and the mean of the extra
  function are unbiased. So is E_z Var_z' k for T ≥ 2; HSIC(Z,Z) is too large by the
  variance of the estimate of E ρ, which falls as 1/(B·T). With T = 1, E ρ² is replaced
  by (E ρ)², which raises HSIC(Z,Z) by 2·Var ρ. The estimate of HSIC(Z,Z) can be
  negative where T is small and the kernel far from linear on the features.

  Args:
    views: [M, b, d] unit-norm features of this device's images, or a sequence of such
      arrays with M views together; those that need no gradient cost no backward pass.
      Images must be in random order. The norms are not checked.
    kernel: k, with a method `on_sphere`.
    block_size: T; each feature is compared with all views of T other images.
    covariance: whether the mean of the squared linear part, which is most of HSIC(Z,Z),
      is exact, from the d × d covariance of the features. It takes a large part of the
      noise away, most where features are close together, for N·d² multiplications and
      an exchange of d² numbers.
    axis_name: the mapped axis over which the batch is spread, if it is. The blocks are
      those of the global batch: the number of devices does not change the result.
    extra: a function of inner products, of any shape, entry by entry.

  Returns:
    The terms, and the mean of `extra` over all pairs; the same on every device.

  Raises:
    AssertionError: the arrays do not have three axes, or not the same b and d.
    ValueError: there is only one view, or pairs of blocks do not divide the images of
      this device.
  """
  parts = [part.astype(jnp.float32) for part in hsic.parts_of(views)]
  num_views, local_batch = hsic.check_views(parts)
  check_block_size(block_size, local_batch)
  batch_size = collectives.global_batch_size(local_batch, axis_name)
  count = num_views * batch_size
  tangent = _tangent(kernel, parts, count, axis_name)

  # The blocks come in groups, one after another. For the backward pass only the inner
  # products are kept, N·(M + M·T/2) numbers; the rest is computed again.
  @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
  def of_group(group):
    return _sums(group, kernel, tangent, batch_size, covariance, extra)

  sums = jax.lax.map(of_group, [_groups(part, block_size) for part in parts])
  sums = collectives.global_sum(jax.tree.map(lambda x: x.sum(axis=0), sums), axis_name)

  # With `covariance` the square of the linear part comes from all pairs instead.
  linear_square = jnp.float32(0)
  if covariance:
    linear_square = _linear_square(parts, tangent, count, axis_name)
  return _combine(sums, linear_square, tangent, num_views, batch_size, block_size)


def check_block_size(block_size: int, local_batch: int) -> None:
  """Checks that pairs of blocks divide a device's images.

  Args:
    block_size: T.
    local_batch: b, images of the batch on a device.

  Raises:
    ValueError: they do not.
  """
  if block_size < 1 or local_batch % (2 * block_size):
    possible = [t for t in range(1, local_batch // 2 + 1) if local_batch % (2 * t) == 0]
    nearest = sorted(sorted(possible, key=lambda t: abs(t - block_size))[:4])
    advice = (
      f'use block_size = {", ".join(map(str, nearest))}, or another batch size'
      if possible
      else 'use an even number of images on each device'
    )
    raise ValueError(
      f'pairs of blocks of {block_size} images (block_size) do not divide the '
      f'{local_batch} images of the batch on each device; {advice}'
    )


def _linear_square(
  parts: list[chex.Array], tangent: _Tangent, count: int, axis_name: str | None
) -> chex.Array:
  """E (a·⟨x − z̄, y − z̄⟩)² over all pairs of the N = `count` features.

  It is a² times the squared norm of their covariance.
  """
  centre = tangent.centre
  centred = [part.reshape(-1, len(centre)) - centre[None] for part in parts]
  products = sum(jnp.matmul(x.T, x, precision='highest') for x in centred)
  products = collectives.global_sum(products, axis_name) / count
  return tangent.slope**2 * jnp.sum(products**2)


def _groups(part: chex.Array, block_size: int) -> chex.Array:
  """Groups of pairs of blocks: [V, b, d] -> [groups, V, pairs, 2, T, d]."""
  num_views, local_batch, dim = part.shape
  num_pairs = local_batch // (2 * block_size)
  limit = max(1, _IMAGES_AT_ONCE[hsic.backend()] // (2 * block_size))
  possible = range(1, min(limit, num_pairs) + 1)
  # `lax.map` needs groups of one size, so their size divides the number of pairs.
  at_once = max(count for count in possible if num_pairs % count == 0)
  groups = part.reshape(num_views, -1, at_once, 2, block_size, dim)
  return groups.swapaxes(0, 1)


def _tangent(
  kernel: kernels.Kernel, parts: list[chex.Array], count: int, axis_name: str | None
) -> _Tangent:
  """The tangent at the mean of the N = `count` features."""
  total = sum(part.sum(axis=(0, 1)) for part in parts)
  centre = collectives.global_sum(total, axis_name) / count
  centre_square = jnp.sum(centre**2)
  # Any t₀ is right, so its gradient is zero; the mean of t leaves the smallest rest.
  at = jax.lax.stop_gradient(centre_square)
  value, slope = jax.jvp(kernel.on_sphere, (at,), (jnp.ones_like(at),))
  return _Tangent(at, value, slope, centre, centre_square)


def _sums(
  group: list[chex.Array],
  kernel: kernels.Kernel,
  tangent: _Tangent,
  batch_size: int,
  covariance: bool,
  extra: Callable[[chex.Array], chex.Array],
) -> _Sums:
  """Sums over a group of pairs of blocks.

  Args:
    group: arrays [V, pairs, 2, T, d], together of M views.
    kernel: k.
    tangent: of the kernel at t₀.
    batch_size: B.
    covariance, extra: see `estimate`.
  """
  along, other, same = _inner_products(group, tangent.centre)
  along_first, along_second = along
  rest_and_square = functools.partial(_rest_and_square, kernel, tangent, covariance)
  # Against `other`, [pairs, M, T, M, T]: rows are features of block 2k, columns those
  # of block 2k+1.
  other_rest, other_square = rest_and_square(
    other,
    along_first[:, :, :, None, None],
    along_second[:, None, None, :, :],
  )
  # Against `same`, [2, pairs, T, M, M]: rows and columns are views of one image.
  along_same = along.swapaxes(2, 3)
  same_rest, same_square = rest_and_square(
    same, along_same[..., :, None], along_same[..., None, :]
  )

  # r of each feature with each image it is compared with: [2, pairs, M, T, T].
  by_image = jnp.stack(
    [other_rest.mean(axis=3), other_rest.mean(axis=1).transpose(0, 2, 3, 1)]
  )
  num_views = along.shape[2]
  # ρ(x) over all N features: those of its own image exactly, a share of 1/B, and the
  # other images from the sample.
  own = same_rest.sum(axis=4).swapaxes(2, 3) / (num_views * batch_size)
  others_share = 1 - 1 / batch_size
  mean = own + others_share * by_image.mean(axis=4)
  # The square of a sample mean exceeds ρ² by the sampling variance, on average.
  mean_square = mean**2 - others_share**2 * _sampling_variance(by_image, batch_size)
  linear = tangent.slope * (along - tangent.centre_square)
  return _Sums(
    same_kernel=kernel.on_sphere(same).sum(),
    same_square=same_square.sum(),
    same_extra=extra(same).sum(),
    other_square=other_square.sum(),
    other_extra=extra(other).sum(),
    mean=mean.sum(),
    mean_square=mean_square.sum(),
    linear_square=jnp.sum(linear**2),
    product=jnp.sum(linear * mean),
  )


def _inner_products(
  group: list[chex.Array], centre: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array]:
  """Inner products of the features of a group, see `_sums`.

  Returns:
    ⟨x, z̄⟩ of all features, [2, pairs, M, T]; ⟨x, y⟩ of different images,
    [pairs, M, T, M, T]; and of the views of one image, [2, pairs, T, M, M].
  """
  parts = [part.transpose(2, 1, 0, 3, 4) for part in group]  # [2, pairs, V, T, d]
  _, num_pairs, _, block_size, dim = parts[0].shape
  flat = [part.reshape(2, num_pairs, -1, dim) for part in parts]
  along = jnp.concatenate(
    [jnp.matmul(part, centre, precision='highest') for part in parts], axis=2
  )
  # A product for each two parts: one array of all views would cost a backward pass
  # for parts that need none.
  first, second = ([part[side] for part in flat] for side in (0, 1))
  blocks = [jnp.concatenate([_inner(x, y) for y in second], axis=2) for x in first]
  num_views = along.shape[2]
  other = jnp.concatenate(blocks, axis=1).reshape(
    num_pairs, num_views, block_size, num_views, block_size
  )
  together = jnp.concatenate(parts, axis=2).swapaxes(2, 3)
  return along, other, _inner(together, together)


def _inner(x: chex.Array, y: chex.Array) -> chex.Array:
  """Inner products of the rows of x and y: [..., n, d], [..., m, d] -> [..., n, m]."""
  return jnp.einsum('...nd,...md->...nm', x, y, precision='highest')


def _rest_and_square(kernel, tangent, covariance, t, along_x, along_y):
  """r of pairs with inner products t, ⟨x, z̄⟩ and ⟨y, z̄⟩; and q².

  If the mean of the squared linear part is exact, q² less that square.
  """
  rest = kernel.on_sphere(t) - tangent.value - tangent.slope * (t - tangent.at)
  linear = tangent.slope * (t - along_x - along_y + tangent.centre_square)
  # q = r + linear, so q² − linear² = r·(r + 2·linear) without cancellation.
  square = rest * (rest + 2 * linear) if covariance else (rest + linear) ** 2
  return rest, square


def _sampling_variance(by_image: chex.Array, batch_size: int) -> chex.Array:
  """Variance of the mean over the last axis, T of the B − 1 other images of the batch.

  Estimated without bias, with the correction for a finite population; 0 if T is 1.
  """
  count = by_image.shape[-1]
  if count == 1:
    return jnp.zeros_like(by_image[..., 0])
  correction = 1 - count / (batch_size - 1)
  return by_image.var(axis=-1, ddof=1) / count * correction


def _combine(
  sums: _Sums,
  linear_square: chex.Array,
  tangent: _Tangent,
  num_views: int,
  batch_size: int,
  block_size: int,
) -> tuple[hsic.Terms, chex.Array]:
  count = num_views * batch_size  # N features, of which N/2 compared with T·M others.
  num_compared = count * num_views * block_size / 2
  others_share = 1 - 1 / batch_size

  def mean_over_pairs(same, other):
    # The square of N can be too large for an int32.
    return same / count / count + others_share * other / num_compared

  square = mean_over_pairs(sums.same_square, sums.other_square) + linear_square
  mean = sums.mean / count
  # T = 1 leaves no sampling variance to subtract, so (E ρ)² stands in for E ρ².
  mean_square = sums.mean_square / count if block_size > 1 else mean**2
  hsic_zz = square - 2 * mean_square + mean**2
  # f(t₀) + E a·(t − t₀) + E r: the middle term is zero, but has a gradient.
  kernel_mean = (
    tangent.value + tangent.slope * (tangent.centre_square - tangent.at) + mean
  )
  return hsic.Terms(
    hsic_zy=sums.same_kernel / (count * (num_views - 1)) - kernel_mean,
    hsic_zz=hsic_zz,
    # HSIC(Z,Z) + Var (λ + ρ), where E λ = 0 because z̄ is the mean feature.
    kernel_variance=hsic_zz
    + (sums.linear_square + 2 * sums.product) / count
    + mean_square
    - mean**2,
  ), mean_over_pairs(sums.same_extra, sums.other_extra)
