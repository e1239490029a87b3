"""α-ReQ (Agrawal et al., 2022): how fast the spectrum of the features decays."""

import dataclasses
from typing import ClassVar

import chex
import numpy as np

from sslhsic.evaluation import spectrum
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaReQ(evaluator.Evaluator):
  """`alpha_req`: exponent α of the power law λ_i ∝ i^(−α) of the test features.

  λ₁ ≥ λ₂ ≥ … are the eigenvalues of the covariance of the features ("α-ReQ: Assessing
  Representation Quality in Self-Supervised Learning by measuring eigenspectrum decay",
  NeurIPS 2022). Features that are whitened have α = 0; the paper finds α near 1 in good
  representations, and larger values in dimensional collapse.

  Attributes:
    features: 'embedding' or 'projection'.
    ranks: first and last i of the fit. The first eigenvalues and the tail, which few
      images leave noisy, do not follow the law.
  """

  features: str = 'embedding'
  ranks: tuple[int, int] = (11, 50)

  takes_share: ClassVar[bool] = True

  def __post_init__(self):
    evaluator.check_features(self.features)
    if len(self.ranks) != 2 or not 1 <= self.ranks[0] < self.ranks[1]:
      raise ValueError(f'ranks is {self.ranks}; use (first, last), 1 <= first < last')

  @property
  def outputs(self) -> tuple[str, ...]:
    """The features, see `Evaluator`."""
    return (self.features,)

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks that the covariance can have two of the ranks, see `Evaluator`."""
    if num_test < self.ranks[0] + 2:
      raise ValueError(
        f'ranks is {self.ranks}, but the test split has {num_test} images, whose '
        f'covariance has rank {num_test - 1} at most; use lower ranks or more images'
      )

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    first, last = self.ranks
    return {
      'alpha_req': f'exponent of the power law of the eigenvalues {first} to {last} of '
      f'the covariance of the {self.features} of test, by least squares of logarithms'
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The exponent, see `Evaluator`."""
    return {'alpha_req': decay_exponent(inputs.test[self.features], self.ranks)}


def decay_exponent(features: chex.Array, ranks: tuple[int, int]) -> float:
  """Minus the slope of log λ_i against log i, by least squares.

  Args:
    features: [n, d] of this host; the result counts all hosts.
    ranks: first and last i, counted from 1.

  Returns:
    α, from those of these eigenvalues that are above the rounding error of float32; NaN
    if fewer than two are.
  """
  sums = spectrum.moments(features)
  # λ is proportional to the squares of these, and a factor does not change the slope.
  singular_values = spectrum.singular_values(sums, centred=True)
  rank = np.count_nonzero(singular_values > spectrum.rounding_error(sums))
  first, last = ranks[0], min(ranks[1], int(rank))
  if last <= first:
    return float('nan')
  log_eigenvalues = 2 * np.log(singular_values[first - 1 : last])
  slope, _ = np.polyfit(np.log(np.arange(first, last + 1)), log_eigenvalues, deg=1)
  return -float(slope)
