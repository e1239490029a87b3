"""Data sets by name, as random-access sequences of examples.

An example is `{'image': uint8 [H, W, C], 'label': int32}`. Adding a data set is one
entry in `SOURCES`: a function (argument, split) -> source, where the argument is what
follows the colon of a name such as 'tfds:imagenet2012'.
"""

import dataclasses
from typing import Protocol

import chex
import numpy as np
from sklearn import datasets, model_selection


class Source(Protocol):
  """A random-access sequence of examples, with its number of classes."""

  num_classes: int

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Examples that are in memory.

  Attributes:
    images: [n, H, W, C], uint8.
    labels: [n], int32.
    num_classes: labels are below it.
  """

  images: np.ndarray
  labels: np.ndarray
  num_classes: int

  def __post_init__(self):
    chex.assert_shape(self.images, (len(self.labels), None, None, None))
    chex.assert_type([self.images, self.labels], [np.uint8, np.int32])

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return {'image': self.images[index], 'label': self.labels[index]}


def digits(argument: str, split: str) -> ArraySource:
  """Scikit-learn's handwritten digits, [8, 8, 1]: 1,437 to train on, 360 to test.

  The split is stratified and always the same.
  """
  if argument:
    raise ValueError(f"source 'digits:{argument}' is unknown; use 'digits'")
  bunch = datasets.load_digits()
  train, test = model_selection.train_test_split(
    np.arange(len(bunch.target)), test_size=360, stratify=bunch.target, random_state=0
  )
  splits = {'train': train, 'test': test}
  if split not in splits:
    raise ValueError(f"digits has no split {split!r}; use 'train' or 'test'")
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  rows = splits[split]
  return ArraySource(images[rows], bunch.target[rows].astype(np.int32), num_classes=10)


SOURCES = {
  'digits': digits,
}


def create(name: str, split: str) -> Source:
  """The source `name`, for instance 'digits'.

  Raises:
    ValueError: there is no such source, or it has no such split.
  """
  kind, _, argument = name.partition(':')
  if kind not in SOURCES:
    raise ValueError(f'unknown data source {name!r}; use one of {", ".join(SOURCES)}')
  return SOURCES[kind](argument, split)
