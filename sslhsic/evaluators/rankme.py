"""RankMe (Garrido et al., 2023): a smooth rank of the features, without labels."""

import dataclasses
from typing import ClassVar

import chex
import numpy as np

from sslhsic.evaluation import spectrum
from sslhsic.evaluators import evaluator

_EPSILON = 1e-7  # The paper's, for float32.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankMe(evaluator.Evaluator):
  """`rankme`: exp of the entropy of the singular values of the test features.

  The features are not centred, unlike those of `diagnostics.effective_rank`
  (https://arxiv.org/abs/2210.02885, equation 1).

  Attributes:
    features: 'embedding' or 'projection'.
  """

  features: str = 'embedding'

  takes_share: ClassVar[bool] = True

  def __post_init__(self):
    evaluator.check_features(self.features)

  @property
  def outputs(self) -> tuple[str, ...]:
    """The features, see `Evaluator`."""
    return (self.features,)

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {
      'rankme': f'exp of the entropy of the singular values of the {self.features} of '
      'test, not centred'
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The rank, see `Evaluator`."""
    sums = spectrum.moments(inputs.test[self.features])
    return {'rankme': smooth_rank(spectrum.singular_values(sums, centred=False))}


def smooth_rank(spectrum: chex.Array) -> float:
  """Smooth number of values that differ from zero.

    exp(−Σ_k p_k log p_k),  p_k = σ_k / ‖σ‖₁ + ε,  ε = 1e-7

  Args:
    spectrum: σ [m], not negative.

  Returns:
    m if all values are equal, 1 if all but one are zero, up to ε; 0 if all are zero.
  """
  chex.assert_rank(spectrum, 1)
  spectrum = np.asarray(spectrum, np.float64)
  total = spectrum.sum()
  if total == 0:
    return 0.0
  shares = spectrum / total + _EPSILON
  return float(np.exp(-np.sum(shares * np.log(shares))))
