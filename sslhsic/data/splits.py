"""What a split such as 'train[:-10009], balanced 1%' means.

    split    = part {'+' part} [', ' ['all but '] subset [', seed ' number]]
    part     = NAME | NAME '[' from ':' to ']'        examples or percent: TFDS's syntax
    subset   = 'random ' size | 'balanced ' size      examples or percent

`random` draws examples without looking at their labels, `balanced` draws equally many
of every class, and `all but` takes what such a subset leaves. The subset is a function
of the seed (0 if there is none), and part of the subset of any larger size.
"""

import collections
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds

_SUBSET = re.compile(
  r'(?P<rest>all but )?'
  r'(?P<kind>random|balanced) (?P<size>\d+(\.\d+)?%|\d+)(, seed (?P<seed>\d+))?'
)


class Labelled(Protocol):
  """Examples with labels [n], as `sources.Source` has them."""

  num_classes: int
  labels: np.ndarray

  def __len__(self) -> int: ...


class Subset(NamedTuple):
  """Some of the examples of a split, for instance those that have labels.

  Attributes:
    kind: 'random' or 'balanced'.
    size: number of examples, or a share such as '1%'.
    seed: of the draw.
    is_rest: whether it is the examples that are not drawn.
  """

  kind: str
  size: str
  seed: int = 0
  is_rest: bool = False

  def __str__(self) -> str:
    return (
      f'{"all but " if self.is_rest else ""}{self.kind} {self.size}, seed {self.seed}'
    )

  def count(self, num_examples: int) -> int:
    """How many of `num_examples` it holds.

    Raises:
      ValueError: none of them, or more than there are.
    """
    count = int(self.size) if self.size.isdigit() else 0
    if self.size.endswith('%'):
      count = round(float(self.size[:-1]) / 100 * num_examples)
    if not 1 <= count <= num_examples:
      raise ValueError(
        f"'{self}' of {num_examples:,} examples is {count:,}; ask for 1 to "
        f'{num_examples:,}'
      )
    return count


def parse(split: str) -> tuple[str, Subset | None]:
  """Parts, in TFDS's syntax, and subset of a split.

  Raises:
    ValueError: what follows the first comma is not a subset.
  """
  parts, comma, rest = split.partition(',')
  if not comma:
    return parts.strip(), None
  match = _SUBSET.fullmatch(rest.strip())
  if not match:
    raise ValueError(
      f'split {split!r} has no subset after its comma; write it as '
      "'train, balanced 1%, seed 0' or 'train, random 500'"
    )
  seed, is_rest = int(match['seed'] or 0), bool(match['rest'])
  return parts.strip(), Subset(match['kind'], match['size'], seed, is_rest)


# Names of the splits, and their usual variants.
_NAMES = {
  'train': 'train|training',
  'validation': 'validation|valid|val|dev',
  'test': 'test|testing',
}
_THING = 'images?|imgs?|data|set|split'
_VARIANT = {
  name: re.compile(
    rf'(({_THING})[-_ ]?)?({variants})([-_ ]?({_THING}|\d{{4}}))?', re.IGNORECASE
  )
  for name, variants in _NAMES.items()
}


def canonical_name(name: str) -> str | None:
  """'train', 'validation' or 'test' for a variant such as 'Training' or 'val2017'.

  None for any other name.
  """
  return next((x for x, variant in _VARIANT.items() if variant.fullmatch(name)), None)


def called(names: Iterable[str]) -> dict[str, str]:
  """What splits are called: by a canonical name, or as they are if two would share it.

  Args:
    names: of all splits that there are.
  """
  common = {name: canonical_name(name) or name for name in names}
  counts = collections.Counter(common.values())
  return {name: new if counts[new] == 1 else name for name, new in common.items()}


def canonical(parts: str, names: Mapping[str, str] | None = None) -> str:
  """The same parts, with 'train', 'validation' and 'test' for variants of them.

  Args:
    parts: in TFDS's syntax.
    names: what the splits that there are are called, see `called`. A variant with a
      year is then that split alone: 'train2014' is not 'train2017'.
  """

  def replaced(match: re.Match[str]) -> str:
    name = match[0]
    if names and name in names:
      return names[name]
    if names and any(character.isdigit() for character in name):
      return name
    return canonical_name(name) or name

  return re.sub(r'\b[a-zA-Z]\w*', replaced, parts)


def to_read(parts: str, there: Collection[str]) -> set[str]:
  """Names of the splits that parts are of, or of all if some are not there."""
  named = set(re.findall(r'[a-zA-Z]\w*', parts))
  return named if named <= set(there) else set(there)  # 'all', or a mistake.


def ranges(
  parts: str, sizes: Mapping[str, int], source: str
) -> list[tuple[str, slice]]:
  """The parts of a split, as slices of named splits.

  Args:
    parts: for instance 'train[:90%]+validation'.
    sizes: number of examples by name of split.
    source: name of the data set, for the message.

  Raises:
    ValueError: there is no such split, not so many examples, or none in these parts.
  """
  # TFDS's own parser and rounding, for all sources; it needs the sizes of splits only.
  infos = {
    name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
    for name, size in sizes.items()
  }
  try:
    absolute = tfds.core.ReadInstruction.from_spec(parts).to_absolute(infos)
  except ValueError as error:
    there = ', '.join(f'{name} ({size:,} examples)' for name, size in sizes.items())
    raise ValueError(
      f'{source} has no split {parts!r}; it has {there}: use one, or parts such as '
      f"'{next(iter(sizes))}[:90%]' to train on and '{next(iter(sizes))}[90%:]' to test"
    ) from error
  slices = [(part.splitname, slice(part.from_, part.to)) for part in absolute]
  if not any(range(sizes[name])[part] for name, part in slices):
    raise ValueError(
      f'split {parts!r} of {source} holds no example; take a larger part'
    )
  return slices


def draw(subset: Subset, source: Labelled) -> np.ndarray:
  """The rows of a subset, in ascending order.

  Args:
    subset: a balanced one is of a size rounded to a multiple of the number of classes.
    source: all examples.

  Returns:
    [n] rows; k of each class if the subset is balanced.

  Raises:
    ValueError: no example is left; or, of a balanced subset, examples have no label or
      several, or a class has fewer than k.
  """
  # One permutation for all sizes, so that larger subsets contain the smaller ones.
  order = np.random.default_rng(subset.seed).permutation(len(source))
  if subset.kind == 'random':
    rows = order[: subset.count(len(source))]
  else:
    rows = _balanced(subset, order, source.labels, source.num_classes)
  if subset.is_rest:
    rows = np.setdiff1d(order, rows)
  if not len(rows):
    raise ValueError(f"'{subset}' of {len(order):,} examples leaves none")
  return np.sort(rows)


def _balanced(
  subset: Subset, order: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
  """The first k rows of each class, in one order for all sizes."""
  if not num_classes or labels.ndim != 1:
    raise ValueError(
      f"'{subset}' needs one label per example; use 'random {subset.size}'"
    )
  per_class = max(round(subset.count(len(labels)) / num_classes), 1)
  rows = []
  for label in range(num_classes):
    members = order[labels[order] == label]
    if len(members) < per_class:
      raise ValueError(
        f"'{subset}' takes {per_class} examples of each class, but class {label} has "
        f'{len(members)} in this split; ask for fewer, or for a random subset'
      )
    rows.append(members[:per_class])
  return np.concatenate(rows)
