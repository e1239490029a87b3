"""The SSL-HSIC loss (Li et al., NeurIPS 2021) in PyTorch, in one file to copy.

It needs PyTorch and nothing else. Under `torch.distributed` the loss is of the
global batch, of which every process holds an equal share. Gradients are of the global
batch after the average over processes that DistributedDataParallel takes:

  criterion = SSLHSIC().to(device)
  optimizer.add_param_group(  # Of Adam or AdamW; its weight decay is not for the scale.
    {'params': criterion.parameters(), 'lr': 3e-4, 'weight_decay': 0.0}
  )
  loss, metrics = criterion(online, target)
  loss.backward()

where `online` and `target` hold the features of the views of each image.
docs/estimator.md derives the default estimator, and `sslhsic/losses/ssl_hsic.py` is the
same loss in JAX; the tests hold one against the other.
"""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.utils import checkpoint

# Keeps the gradient of the root finite when all features are equal.
_SMALLEST_HSIC_ZZ = 1e-14
# Keeps the kernel positive when features collapse and c falls past 0.
_SMALLEST_SCALE = 1e-3
# Entries of the Gram matrix that `exact` computes at once.
_BLOCK_ENTRIES = 2**24
# Features of a process that are compared to learn the scale, of `features` alone.
_NUM_ROWS = 256

ESTIMATORS = ('pairs', 'exact', 'features')


class Terms(NamedTuple):
  """What the loss is made of, scalars of the global batch.

  Attributes:
    hsic_zy: HSIC(Z,Y), dependence of the features on the identity of their image.
    hsic_zz: HSIC(Z,Z), their kernelised variance.
    log_slope: mean of log|∂k/∂s| over pairs of features, s = ‖x−y‖² held fixed; the
      objective of the kernel scale.
  """

  hsic_zy: torch.Tensor
  hsic_zz: torch.Tensor
  log_slope: torch.Tensor


class SSLHSIC(torch.nn.Module):
  """−HSIC(Z,Y) + γ·√HSIC(Z,Z) in the inverse multiquadric kernel c/√(c² + ‖x−y‖²).

  The kernel scale c is a parameter. It does not see the loss: it maximises the mean of
  log|∂k/∂s|, so give it to an optimiser (Adam, 3e-4 as published) without weight decay.

  Args:
    gamma: γ, weight of the regulariser.
    estimator: 'pairs', linear in the batch and without random numbers; 'exact', all
      pairs of features, quadratic; 'features', random Fourier features, as published.
    block_size: T of `pairs`. The images of each process are a multiple of 2T.
    covariance: whether `pairs` takes the linear part of HSIC(Z,Z) from the covariance.
    num_features: D of `features`.
    seed: of the random features, the same in every process.
    initial_scale: c at the start; the kernel has √(c² + 10⁻⁶), whatever c is learned.

  Raises:
    ValueError: the estimator is unknown.
  """

  def __init__(
    self,
    gamma: float = 3.0,
    estimator: str = 'pairs',
    block_size: int = 8,
    covariance: bool = False,
    num_features: int = 512,
    seed: int = 0,
    initial_scale: float = 1.0,
  ):
    super().__init__()
    if estimator not in ESTIMATORS:
      raise ValueError(
        f'estimator is {estimator!r}; use one of {", ".join(ESTIMATORS)}'
      )
    self.gamma = gamma
    self.estimator = estimator
    self.block_size = block_size
    self.covariance = covariance
    self.num_features = num_features
    self.seed = seed
    self.kernel_scale = torch.nn.Parameter(torch.tensor(float(initial_scale)))
    self._num_draws = 0

  def forward(
    self, online: torch.Tensor, target: torch.Tensor | None = None
  ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the global batch.

    Args:
      online: [V, b, d] features of V views of this process's b images: predictions
        where there is a target network, otherwise projections. They need not have unit
        norm. Images are in random order, as shuffling leaves them.
      target: [G, b, d] projections of the target network, if there is one.

    Returns:
      The loss, and 'loss', 'hsic_zy', 'hsic_zz' and 'kernel_scale' to log.

    Raises:
      ValueError: shapes do not fit, or pairs of blocks do not divide the images.
    """
    with torch.autocast(online.device.type, enabled=False):
      views = _views(online, target)
      # The scale's gradient is averaged over processes, whether or not DDP does so too.
      scale = _all_reduce(self.kernel_scale.float()) / _num_processes()
      scale = (scale.square() + _SMALLEST_SCALE**2).sqrt()
      terms = self._terms(views, scale)
      root = terms.hsic_zz.clamp(min=_SMALLEST_HSIC_ZZ).sqrt()
      loss = self.gamma * root - terms.hsic_zy
      metrics = {
        'loss': loss.detach(),
        'hsic_zy': terms.hsic_zy.detach(),
        'hsic_zz': terms.hsic_zz.detach(),
        'kernel_scale': scale.detach(),
      }
      # The scale's objective adds its gradient to the loss, not its value.
      return loss + (terms.log_slope.detach() - terms.log_slope), metrics

  def _terms(self, views: torch.Tensor, scale: torch.Tensor) -> Terms:
    if self.estimator == 'pairs':
      return pairs(views, scale, self.block_size, self.covariance)
    if self.estimator == 'exact':
      return exact(views, scale)
    # Drawn on the CPU, where a seed gives the same numbers in every process.
    generator = torch.Generator().manual_seed(self.seed + (self._num_draws << 20))
    self._num_draws += 1
    dim = views.shape[-1]
    draws = [draw(generator, dim, self.num_features) for _ in range(2)]
    phi_a, phi_b = (
      fourier(views / scale.detach(), w.to(views), b.to(views)) for w, b in draws
    )
    rows = views.detach().flatten(0, 1)
    drawn = torch.randint(len(rows), (2, _NUM_ROWS), generator=generator)
    x, y = rows[drawn.to(rows.device)]
    log_slope = _log_slope(x @ y.T, scale).mean()
    hsic_zy, hsic_zz = features(phi_a, phi_b)
    return Terms(hsic_zy, hsic_zz, _all_reduce(log_slope) / _num_processes())


def pairs(
  views: torch.Tensor, scale: torch.Tensor, block_size: int, covariance: bool = False
) -> Terms:
  """Terms from the views of each image, and each block of T images against one other.

  With t = ⟨x, y⟩, z̄ the mean feature, f the kernel and a = f′(‖z̄‖²), the rest
  r(t) = f(t) − f(‖z̄‖²) − a·(t − ‖z̄‖²) has mean ρ(x) over y, q is r plus the centred
  linear part a·⟨x − z̄, y − z̄⟩, and

    HSIC(Z,Y) = Σᵢ Σₚₗ k(zᵢᵖ, zᵢˡ) / (B·M·(M−1)) − f(‖z̄‖²) − E r
    HSIC(Z,Z) = E q² − 2·E ρ² + (E ρ)²

  Args:
    views: [M, b, d] unit-norm features of this process's images, in random order.
    scale: c; it gets a gradient from `log_slope` alone.
    block_size: T; 2T divides b.
    covariance: whether E (a·⟨x − z̄, y − z̄⟩)² is exact, from the d × d covariance.

  Returns:
    The terms, the same in every process.

  Raises:
    ValueError: 2T does not divide b.
  """
  num_views, local_batch, dim = views.shape
  if block_size < 1 or local_batch % (2 * block_size):
    raise ValueError(
      f'pairs of blocks of {block_size} images (block_size) do not divide the '
      f'{local_batch} images of this process'
    )
  batch_size = local_batch * _num_processes()
  count = num_views * batch_size
  centre = _all_reduce(views.sum(dim=(0, 1))) / count
  centre_square = (centre**2).sum()
  fixed = scale.detach()
  at = centre_square.detach()  # Any expansion point is right, so it has no gradient.
  value = _kernel(at, fixed)
  slope = value**3 / fixed**2

  def rest_and_square(inner, along_x, along_y):
    """r and q², the latter less the linear part's square if that is exact."""
    rest = _kernel(inner, fixed) - value - slope * (inner - at)
    linear = slope * (inner - along_x - along_y + centre_square)
    if covariance:
      return rest, rest * (rest + 2 * linear)
    return rest, (rest + linear) ** 2

  # [2, pairs, M, T, d]: block 2k and block 2k+1.
  blocks = views.reshape(num_views, -1, 2, block_size, dim).permute(2, 1, 0, 3, 4)
  along = blocks @ centre
  first, second = blocks.flatten(2, 3)
  other = (first @ second.mT).unflatten(2, (num_views, block_size))
  other = other.unflatten(1, (num_views, block_size))  # [pairs, M, T, M, T]
  together = blocks.transpose(2, 3)
  same = together @ together.mT  # [2, pairs, T, M, M]

  other_rest, other_square = rest_and_square(
    other, along[0][..., None, None], along[1][:, None, None]
  )
  along_same = along.transpose(2, 3)
  same_rest, same_square = rest_and_square(
    same, along_same[..., None], along_same[..., None, :]
  )
  others_share = 1 - 1 / batch_size
  mean, mean_square = _means(same_rest, other_rest, batch_size)

  def over_pairs(of_same, of_other):
    """This process's part of the mean over all pairs, from those that are computed."""
    return of_same.sum() / count**2 + others_share * of_other.mean() / _num_processes()

  kernel_same, square, mean, mean_square, log_slope = _all_reduce(
    torch.stack(
      [
        _kernel(same, fixed).sum() / (count * (num_views - 1)),
        over_pairs(same_square, other_square),
        mean.sum() / count,
        mean_square.sum() / count,
        over_pairs(*(_log_slope(x.detach(), scale) for x in (same, other))),
      ]
    )
  )
  if covariance:
    square = square + slope**2 * (_covariance(views, centre, count) ** 2).sum()
  # T = 1 leaves no sampling variance to subtract, so (E ρ)² stands in for E ρ².
  hsic_zz = square + mean**2 - 2 * (mean_square if block_size > 1 else mean**2)
  # f(‖z̄‖²) + E a·(t − ‖z̄‖²) + E r: the middle term is zero, but has a gradient.
  kernel_mean = value + slope * (centre_square - at) + mean
  return Terms(kernel_same - kernel_mean, hsic_zz, log_slope)


def _means(
  same: torch.Tensor, other: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
  """ρ(x), the mean of r over y, and ρ(x)² without bias, [2, pairs, M, T] each.

  Args:
    same: r of the views of each image, [2, pairs, T, M, M].
    other: r of different images, [pairs, M, T, M, T].
    batch_size: B.
  """
  num_views, block_size = other.shape[1:3]
  # r of each feature with each image that it is compared with, [2, pairs, M, T, T].
  by_image = torch.stack([other.mean(dim=3), other.mean(dim=1).permute(0, 2, 3, 1)])
  own = same.sum(dim=-1).transpose(2, 3) / (num_views * batch_size)
  others_share = 1 - 1 / batch_size
  mean = own + others_share * by_image.mean(dim=-1)
  if block_size == 1:
    return mean, mean**2
  # The square of a sample mean exceeds ρ² by its sampling variance, on average.
  finite = 1 - block_size / (batch_size - 1)
  variance = by_image.var(dim=-1) / block_size * finite
  return mean, mean**2 - others_share**2 * variance


def exact(views: torch.Tensor, scale: torch.Tensor) -> Terms:
  """Terms from all pairs of features, a block of rows of the Gram matrix at a time.

  Args:
    views: [M, b, d] unit-norm features of this process's images.
    scale: c; it gets a gradient from `log_slope` alone.

  Returns:
    The terms, the same in every process.
  """
  num_views, local_batch, _ = views.shape
  columns = _gather_images(views)
  batch_size = columns.shape[1]
  image = torch.arange(local_batch, device=views.device) + local_batch * _rank()
  image_of_row = image.repeat(num_views)
  image_of_column = torch.arange(batch_size, device=views.device).repeat(num_views)
  columns = columns.flatten(0, 1)

  # A constant near the mean of k is subtracted from k first: no term depends on it, and
  # float32 keeps the digits of what is left.
  offset = _kernel(columns[:1] @ columns.T, scale).mean().detach()

  def moments(rows, images, scale):
    inner = rows @ columns.T
    gram = _kernel(inner, scale.detach()) - offset
    same = (gram * (images[:, None] == image_of_column)).sum()
    means, squares = gram.mean(dim=1), (gram**2).mean(dim=1)
    log_slope = _log_slope(inner.detach(), scale).mean(dim=1)
    sums = (same, means.sum(), (means**2).sum(), squares.sum(), log_slope.sum())
    return torch.stack(sums)

  rows_at_once = max(1, _BLOCK_ENTRIES // len(columns))
  blocks = zip(
    views.flatten(0, 1).split(rows_at_once),
    image_of_row.split(rows_at_once),
    strict=True,
  )
  # Each block is computed again in the backward pass, so memory is linear in the batch.
  sums = sum(
    checkpoint.checkpoint(moments, *block, scale, use_reentrant=False)
    for block in blocks
  )
  same, mean, mean_square, square, log_slope = _all_reduce(sums) / len(columns)
  hsic_zy = (same + offset) / (num_views - 1) - mean
  return Terms(hsic_zy, square - 2 * mean_square + mean**2, log_slope)


def features(
  phi_a: torch.Tensor, phi_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
  """HSIC(Z,Y) from one draw of random features, HSIC(Z,Z) from two; as published.

  Args:
    phi_a: [M, b, D] features φ of this process's images, from one draw.
    phi_b: [M, b, D'] features of the same images, from an independent draw.

  Returns:
    Two scalars, the same in every process.
  """
  num_views, local_batch, _ = phi_a.shape
  batch_size = local_batch * _num_processes()
  count = num_views * batch_size
  within = _all_reduce((phi_a.sum(dim=0) ** 2).sum())
  mean_a, mean_b = (_all_reduce(phi.sum(dim=(0, 1))) / count for phi in (phi_a, phi_b))
  hsic_zy = within / (count * (num_views - 1)) - (mean_a**2).sum()
  a, b = phi_a - mean_a, phi_b - mean_b
  products = _all_reduce(a.flatten(0, 1).T @ b.flatten(0, 1)) / count
  return hsic_zy, (products**2).sum()


def draw(
  generator: torch.Generator, dim: int, num_features: int
) -> tuple[torch.Tensor, torch.Tensor]:
  """Frequencies W [D, d] at unit scale and phases b [D] of the kernel's features.

  (1 + r²)^(−1/2) = E exp(−g²r²/2) with g ~ N(0, 1), so a frequency is g·n with
  n ~ N(0, I), in every dimension.
  """
  amplitudes = torch.randn(num_features, 1, generator=generator)
  normals = torch.randn(num_features, dim, generator=generator)
  phases = 2 * math.pi * torch.rand(num_features, generator=generator)
  return amplitudes * normals, phases


def fourier(
  z: torch.Tensor, frequencies: torch.Tensor, phases: torch.Tensor
) -> torch.Tensor:
  """φ(z) = √(2/D)·cos(Wz + b): [..., d] -> [..., D]."""
  return math.sqrt(2 / len(phases)) * torch.cos(z @ frequencies.T + phases)


def _views(online: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
  """All features of each image, of unit norm, [M, b, d] in float32."""
  parts = [online] if target is None else [online, target.detach()]
  for name, part in zip(('online', 'target'), parts, strict=False):
    if part.ndim != 3 or part.shape[1:] != online.shape[1:]:
      raise ValueError(
        f'{name} has shape {tuple(part.shape)}, online {tuple(online.shape)}; use '
        '[views, images, dimension], the last two alike'
      )
  views = functional.normalize(torch.cat([part.float() for part in parts]), dim=-1)
  if len(views) < 2:
    raise ValueError('one view of each image; HSIC(Z,Y) compares two or more')
  return views


def _kernel(inner: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
  """k of unit-norm features with these inner products."""
  return scale * (scale**2 + (2 - 2 * inner).clamp(min=0)).rsqrt()


def _log_slope(inner: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
  """log|∂k/∂s| = log c − log 2 − 3/2·log(s + c²) at s = 2 − 2t."""
  square = (2 - 2 * inner).clamp(min=0)
  return scale.log() - math.log(2) - 1.5 * (square + scale**2).log()


def _covariance(views: torch.Tensor, centre: torch.Tensor, count: int) -> torch.Tensor:
  centred = (views - centre).flatten(0, 1)
  return _all_reduce(centred.T @ centred) / count


def _num_processes() -> int:
  return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
  return dist.get_rank() if dist.is_initialized() else 0


class _AllReduce(torch.autograd.Function):
  """Sum over processes. Every process has the same loss, so the backward pass adds up
  as many gradients: n times the gradient of the loss, which the average of DDP undoes.
  """

  @staticmethod
  def forward(ctx, x):
    total = x.clone()
    dist.all_reduce(total)
    return total

  @staticmethod
  def backward(ctx, gradient):
    total = gradient.clone()
    dist.all_reduce(total)
    return total


def _all_reduce(x: torch.Tensor) -> torch.Tensor:
  return _AllReduce.apply(x) if _num_processes() > 1 else x


def _gather_images(views: torch.Tensor) -> torch.Tensor:
  """[M, b, d] of this process -> [M, B, d] of all: each fills its share of zeros."""
  if _num_processes() == 1:
    return views
  local_batch = views.shape[1]
  before = local_batch * _rank()
  after = local_batch * (_num_processes() - 1) - before
  return _AllReduce.apply(functional.pad(views, (0, 0, before, after)))
