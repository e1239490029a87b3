"""Top-1 accuracy of the classifier that is trained along with the encoder."""

import dataclasses
from typing import ClassVar

from sslhsic.evaluation import features, metrics
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineClassifier(evaluator.Evaluator):
  """`online_top1`: the linear classifier on the embedding, whose gradient stops there.

  It learns from the labels of the training images, so another source must have the
  same classes.
  """

  needs_labels: ClassVar[bool] = True
  takes_share: ClassVar[bool] = True

  @property
  def outputs(self) -> tuple[str, ...]:
    """The logits, see `Evaluator`."""
    return ('logits',)

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {
      'online_top1': 'linear classifier on the embedding, trained along with the '
      'encoder on augmented views; one pass over test'
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The accuracy, see `Evaluator`."""
    is_right = metrics.in_top_k(inputs.test['logits'], inputs.test['label'])
    return {'online_top1': features.mean(is_right)}
