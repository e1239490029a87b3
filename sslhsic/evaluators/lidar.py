"""LiDAR (Thilak et al., 2024): rank of the directions that tell images apart."""

import dataclasses
from typing import ClassVar

import chex
import numpy as np
from scipy import linalg

from sslhsic.evaluators import evaluator
from sslhsic.evaluators.rankme import smooth_rank

_DELTA = 1e-4  # The paper's.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiDAR(evaluator.Evaluator):
  """`lidar`: smooth rank of linear discriminant analysis, each image a class.

  The features of a class are those of augmented views of its image, drawn as in
  training (https://arxiv.org/abs/2312.04000).

  Attributes:
    features: 'embedding' or 'projection'.
    num_images: n, images of the test split. The result is below n.
    num_views: q, augmented views of each.
  """

  features: str = 'embedding'
  num_images: int = 1000
  num_views: int = 10

  splits: ClassVar[tuple[str, ...]] = ()

  def __post_init__(self):
    evaluator.check_features(self.features)
    for name in ('num_images', 'num_views'):
      if getattr(self, name) < 2:
        raise ValueError(f'{name} is {getattr(self, name)}; use 2 or more')

  @property
  def outputs(self) -> tuple[str, ...]:
    """The features, see `Evaluator`."""
    return (self.features,)

  @property
  def augmented(self) -> tuple[int, int]:
    """The views, see `Evaluator`."""
    return self.num_images, self.num_views

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks that there are n images, see `Evaluator`."""
    if self.num_images > num_test:
      raise ValueError(
        f'num_images is {self.num_images}, but the test split has {num_test}; use fewer'
      )

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {
      'lidar': 'exp of the entropy of the eigenvalues of the LDA matrix of the '
      f'{self.features}, classes being {self.num_images} images of test with '
      f'{self.num_views} augmented views each'
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The rank, see `Evaluator`."""
    return {'lidar': lda_rank(inputs.views[self.features])}


def lda_rank(views: chex.Array) -> float:
  """Smooth rank of Σ_w^(−1/2) Σ_b Σ_w^(−1/2), with x̄ᵢ the mean of the views of image i.

    Σ_b = Σᵢ (x̄ᵢ − x̄)(x̄ᵢ − x̄)ᵀ / (n − 1)
    Σ_w = Σᵢⱼ (xᵢⱼ − x̄ᵢ)(xᵢⱼ − x̄ᵢ)ᵀ / (n·(q − 1)) + δ·I,  δ = 1e-4

  Args:
    views: x [n, q, d], n and q at least 2.

  Returns:
    `smooth_rank` of the eigenvalues, at most min(n − 1, d) up to its ε; 0 if images
    differ by the rounding error of float32 only, NaN if a feature is not finite.
  """
  chex.assert_rank(views, 3)
  if not np.isfinite(views).all():
    return float('nan')
  # In float32, the rounding errors of large variances would exceed δ.
  views = np.asarray(views, np.float64)
  n, q, d = views.shape
  means = views.mean(axis=1)
  # `np.cov` of one dimension is a scalar.
  between = np.cov(means, rowvar=False).reshape(d, d)
  # About the variance that float32 rounding gives to features of equal images.
  rounding = np.finfo(np.float32).eps ** 2 * np.mean(np.sum(means**2, axis=1))
  if np.trace(between) <= rounding:
    return 0.0
  residuals = (views - means[:, None, :]).reshape(n * q, d)
  within = residuals.T @ residuals / (n * (q - 1)) + _DELTA * np.eye(d)
  # Σ_b v = λ·Σ_w v has the eigenvalues of the symmetric matrix.
  eigenvalues = linalg.eigh(between, within, eigvals_only=True)
  return smooth_rank(np.maximum(eigenvalues, 0))
