"""Top-1 accuracy of weighted nearest neighbours."""

import dataclasses
from typing import ClassVar

from sslhsic.evaluation import features, representations
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestNeighbours(evaluator.Evaluator):
  """`knn_top1`: weighted kNN of Wu et al. (2018), https://arxiv.org/abs/1805.01978.

  Attributes:
    train_split: split with the neighbours; None: `config.evaluation.train_split`.
    k: neighbours that vote.
    temperature: τ of their weights exp(similarity / τ).
  """

  train_split: str | None = None
  k: int = 20
  temperature: float = 0.07

  splits: ClassVar[tuple[str, ...]] = ('train', 'test')
  needs_labels: ClassVar[bool] = True
  takes_share: ClassVar[bool] = True

  def __post_init__(self):
    if self.k < 1:
      raise ValueError(f'k is {self.k}; use 1 or more')
    if self.temperature <= 0:
      raise ValueError(f'temperature is {self.temperature}; use a positive number')

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks that there are k training images, see `Evaluator`."""
    if self.k > num_train:
      raise ValueError(
        f'k is {self.k}, but the train split has {num_train} images; use a smaller k'
      )

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {'knn_top1': self._protocol.describe()['knn_top1']}

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The accuracy, see `Evaluator`."""
    train, test = (
      features.Share(arrays['embedding'], arrays['label'], arrays['row'])
      for arrays in (inputs.train, inputs.test)
    )
    top1 = representations.knn_top1(
      train, test, num_classes=inputs.num_classes, protocol=self._protocol
    )
    return {'knn_top1': top1}

  @property
  def _protocol(self) -> representations.Protocol:
    return representations.Protocol(k=self.k, temperature=self.temperature)
