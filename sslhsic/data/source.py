"""The contract of data sets, those in memory, and parts and unions of others."""

import dataclasses
from typing import Protocol

import numpy as np

from sslhsic.data.annotations import Annotations
from sslhsic.data.origins import Origin


class Source(Protocol):
  """A random-access sequence of examples.

  Attributes:
    num_classes: labels are below it; 0: there are no labels.
    labels: of all examples, [n] or [n, num_classes], without decoding an image.
  """

  num_classes: int
  labels: np.ndarray

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]: ...

  def name(self, index: int) -> str:
    """What to call an example in a message."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Examples that are in memory.

  Attributes:
    images: [n, H, W, C], uint8.
    labels: [n], int32.
    num_classes: labels are below it.
    origin: of the examples, if they are of a data set.
  """

  images: np.ndarray
  labels: np.ndarray
  num_classes: int
  origin: Origin | None = None

  def __post_init__(self):
    shape, dtypes = self.images.shape, (self.images.dtype, self.labels.dtype)
    # NumPy's types compare equal to their names.
    if len(shape) != 4 or shape[0] != len(self.labels) or dtypes != ('uint8', 'int32'):
      raise ValueError(
        f'images are {dtypes[0]}{shape} and labels {dtypes[1]}{self.labels.shape}; '
        'pass uint8 [n, H, W, C] and int32 [n]'
      )

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return self.take(index)

  def take(self, rows: np.ndarray | int) -> dict[str, np.ndarray]:
    """The arrays of these examples; see `take`."""
    return {'image': self.images[rows], 'label': self.labels[rows]}

  def name(self, index: int) -> str:
    """The number of an example."""
    return f'example {index}'


@dataclasses.dataclass(frozen=True, eq=False)
class SubsetSource:
  """Some examples of a source.

  Attributes:
    source: the examples.
    rows: [n], which of them.
  """

  source: Source
  rows: np.ndarray

  @property
  def num_classes(self) -> int:
    """That of the source."""
    return self.source.num_classes

  @property
  def labels(self) -> np.ndarray:
    """Those of the chosen examples."""
    return self.source.labels[self.rows]

  @property
  def annotations(self) -> Annotations:
    """Those of the source."""
    return _annotations_of(self.source)

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]:
    return self.source[int(self.rows[index])]

  def name(self, index: int) -> str:
    """As the source calls it."""
    return self.source.name(int(self.rows[index]))


@dataclasses.dataclass(frozen=True, eq=False)
class ConcatenatedSource:
  """The examples of one source, then those of another.

  Attributes:
    first, second: sources of the same classes.
  """

  first: Source
  second: Source

  @property
  def num_classes(self) -> int:
    """That of both."""
    return self.first.num_classes

  @property
  def labels(self) -> np.ndarray:
    """Those of both."""
    return np.concatenate([self.first.labels, self.second.labels])

  @property
  def annotations(self) -> Annotations:
    """Those of the first, of the kinds that both have."""
    first, second = _annotations_of(self.first), _annotations_of(self.second)
    return first._replace(kinds=first.kinds & second.kinds)

  def __len__(self) -> int:
    return len(self.first) + len(self.second)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]:
    source, row = self._at(index)
    return source[row]

  def name(self, index: int) -> str:
    """As the source that it is from calls it."""
    source, row = self._at(index)
    return source.name(row)

  def _at(self, index: int) -> tuple[Source, int]:
    if index < len(self.first):
      return self.first, index
    return self.second, index - len(self.first)


@dataclasses.dataclass(frozen=True, eq=False)
class RelabelledSource:
  """The examples of a source, with other numbers for their classes.

  Attributes:
    source: the examples.
    numbers: [C + 1] int32, by the source's number; the last is -1, for no class.
    num_classes: of the new numbers.
    object_numbers: [K + 1], the same for the classes of objects; or None.
    annotations: with the new numbers.
  """

  source: Source
  numbers: np.ndarray
  num_classes: int
  object_numbers: np.ndarray | None
  annotations: Annotations

  @property
  def labels(self) -> np.ndarray:
    """[n] or [n, num_classes]."""
    return self._renumbered(self.source.labels)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]:
    example = self.source[index]
    example |= {'label': self._renumbered(example['label'], example=True)}
    if self.object_numbers is not None:
      example |= {'classes': self.object_numbers[example['classes']]}
    return example

  def name(self, index: int) -> str:
    """As the source calls it."""
    return self.source.name(index)

  def _renumbered(self, labels: np.ndarray, *, example: bool = False) -> np.ndarray:
    # One label each; -1, no label, reads the last entry, which is -1 too.
    if np.ndim(labels) == (0 if example else 1):
      return self.numbers[labels]
    renumbered = np.zeros((*labels.shape[:-1], self.num_classes), np.int32)
    # Multi-hot: column c moves to numbers[c]; classes that the source lacks stay 0.
    renumbered[..., self.numbers[:-1]] = labels
    return renumbered


def path_or_name(source: Source, row: int) -> str:
  """The path of an example as it is on the disk; its name if it is not in a file.

  Names are for messages, and escape what cannot be printed. A class of sources of files
  defines `path(row)`.
  """
  if isinstance(source, SubsetSource):
    return path_or_name(source.source, int(source.rows[row]))
  if isinstance(source, RelabelledSource):
    return path_or_name(source.source, row)
  path = getattr(source, 'path', source.name)
  return path(row)


def take(source: Source, rows: np.ndarray) -> dict[str, np.ndarray] | None:
  """Several examples at once: arrays [k, ...] by name, or None.

  A class of sources that has its examples in memory can define `take(rows)`, which
  returns the arrays of `source[row]` for each row, stacked: all of them, of the same
  types; or None.

  Args:
    source: the examples.
    rows: [k], of the source.
  """
  if isinstance(source, SubsetSource):
    return take(source.source, source.rows[rows])
  for cls in type(source).__mro__:
    if 'take' in vars(cls):
      return source.take(rows)
    if '__getitem__' in vars(cls):  # A subclass may change this one alone.
      return None
  return None


def single_label_classes(source: Source) -> int:
  """Number of classes of examples that have one label each.

  Raises:
    ValueError: they have none, or several.
  """
  if not source.num_classes or np.ndim(source[0]['label']):
    raise ValueError(
      f'{source.name(0)} has no label, or several; use a data set with one label each'
    )
  return source.num_classes


def annotations(source: Source, kind: str) -> Annotations:
  """What the examples of a source hold, if that includes what is needed.

  Args:
    source: the examples.
    kind: 'segmentation', 'depth', 'boxes' or 'masks'.

  Raises:
    ValueError: the examples do not have it.
  """
  found = _annotations_of(source)
  if kind not in found.kinds:
    raise ValueError(
      f'{source.name(0)} has {", ".join(sorted(found.kinds)) or "an image only"}, but '
      f'{kind} is needed; use a data set that has it'
    )
  return found


def with_metadata(source: Source, field: str) -> Source:
  """The source, with a field of its metadata in each example, as 'metadata'.

  It is an int32 number of a category, or float32 [k] of a quantity.

  Args:
    source: the examples.
    field: a column of the table of a folder, or a feature of TFDS.

  Raises:
    ValueError: the source has no such field.
  """
  if isinstance(source, ConcatenatedSource):
    first, second = (with_metadata(x, field) for x in (source.first, source.second))
    return dataclasses.replace(source, first=first, second=second)
  if isinstance(source, SubsetSource | RelabelledSource):
    return dataclasses.replace(source, source=with_metadata(source.source, field))
  if not hasattr(source, 'with_metadata'):
    raise ValueError(
      f'{source.name(0)} has no metadata; use folder:PATH?metadata=FILE.csv, or a '
      'feature of a data set of TFDS'
    )
  return source.with_metadata(field)


def origins(source: Source) -> list[Origin]:
  """Where the examples come from, as far as it is known."""
  if isinstance(source, ConcatenatedSource):
    return [*origins(source.first), *origins(source.second)]
  if isinstance(source, RelabelledSource):
    return origins(source.source)
  if isinstance(source, SubsetSource):
    # Rows refer to one origin; of a subset of several, nothing is known.
    whole = origins(source.source)
    return [Origin(x.where, x.rows[source.rows]) for x in whole if len(whole) == 1]
  origin = getattr(source, 'origin', None)
  return [] if origin is None else [origin]


def of_whole(source: Source) -> Source:
  """The source that a subset is of, or the source itself."""
  while isinstance(source, SubsetSource):
    source = source.source
  return source


def _annotations_of(source: Source) -> Annotations:
  return getattr(source, 'annotations', Annotations())
