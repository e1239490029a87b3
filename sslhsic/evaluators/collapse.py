"""Spread and effective rank of the embedding, which fall when it collapses."""

import dataclasses
from typing import ClassVar

from sslhsic.evaluation import diagnostics
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collapse(evaluator.Evaluator):
  """`embedding_std` and `effective_rank` of the test embeddings.

  See `diagnostics.feature_std` (Chen and He, 2021) and `diagnostics.effective_rank`
  (Roy and Vetterli, 2007).
  """

  takes_share: ClassVar[bool] = True

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {
      'embedding_std': 'mean standard deviation of the unit-norm embedding of test, '
      'times the root of its dimension',
      'effective_rank': 'exp of the entropy of the singular values of the centred '
      'embedding of test',
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """Both measures, see `Evaluator`."""
    embedding = inputs.test['embedding']
    return {
      'embedding_std': diagnostics.feature_std_of_hosts(embedding),
      'effective_rank': diagnostics.effective_rank(embedding),
    }
