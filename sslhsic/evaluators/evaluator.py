"""The contract of evaluators, and what most of them have in common."""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

INITIAL = 'initial'  # The reference that has the random initial values of the run.


class Inputs(NamedTuple):
  """Outputs of the online network, float32 arrays on the host.

  Attributes:
    train, test: of the images of a split: [n, d] under each name in
      `Evaluator.outputs`, 'label' [n], and 'row' [n] of the split. None unless
      `Evaluator.splits` has it. With several hosts, of all images, or, as
      `Evaluator.takes_share` says, of this host's.
    reference: 'embedding' [n, c] of the images of the test split by the encoder of
      `Evaluator.other_encoder`. None unless it names one.
    views: of augmented views, [images, views, d] under each name in
      `Evaluator.outputs`. None unless `Evaluator.augmented` asks for them.
    num_classes: of the labels; 0: there are none.
  """

  train: Arrays | None = None
  test: Arrays | None = None
  reference: Arrays | None = None
  views: Arrays | None = None
  num_classes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """A measurement of the network during pre-training.

  Attributes:
    source: data set to measure on; None: `config.data.source`.
    test_split: split of it; None: `config.evaluation.test_split`.
    splits: splits that the network embeds for it, 'train' and 'test'.
    needs_labels: whether it is nothing without labels.
    takes_share: whether it is given the images of its host alone, and adds up over
      the hosts (see `features.mean`); else all images are gathered on every host.
  """

  source: str | None = None
  test_split: str | None = None

  splits: ClassVar[tuple[str, ...]] = ('test',)
  needs_labels: ClassVar[bool] = False
  takes_share: ClassVar[bool] = False

  @property
  def outputs(self) -> tuple[str, ...]:
    """Outputs of the network that it needs: 'embedding', 'projection', 'logits'."""
    return ('embedding',)

  @property
  def other_encoder(self) -> str:
    """Another encoder that embeds the test split for it, if any.

    It is `INITIAL`, or what `config.init_from` takes.
    """
    return ''

  @property
  def augmented(self) -> tuple[int, int] | None:
    """Number of images of the test split, and of augmented views of each, if any."""
    return None

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks the settings against the numbers of images.

    Args:
      num_train: images of the train split; 0 if `splits` does not have it.
      num_test: images of the test split.

    Raises:
      ValueError: there are too few images.
    """

  def describe(self) -> dict[str, str]:
    """The protocol in a sentence, by the name of each result."""
    raise NotImplementedError

  def __call__(self, inputs: Inputs) -> dict[str, float]:
    """The results, by the names of `describe`."""
    raise NotImplementedError


def check_features(features: str) -> None:
  """Checks a setting `features`.

  Raises:
    ValueError: it is neither 'embedding' nor 'projection'.
  """
  if features not in ('embedding', 'projection'):
    raise ValueError(f"features is {features!r}; use 'embedding' or 'projection'")


def check_num_images(num_images: int) -> None:
  """Checks a setting `num_images` of an unbiased estimator.

  Raises:
    ValueError: it needs more.
  """
  if num_images < 4:
    raise ValueError(f'num_images is {num_images}; use 4 or more')


def check_four_images(num_test: int) -> None:
  """Checks the size of the test split for an unbiased estimator.

  Raises:
    ValueError: there are too few images.
  """
  if num_test < 4:
    raise ValueError(f'the test split has {num_test} images; use 4 or more')


def draw_rows(count: int, most: int) -> np.ndarray:
  """At most so many of `count` rows, drawn at random, always the same."""
  return np.sort(np.random.default_rng(0).permutation(count)[:most])
