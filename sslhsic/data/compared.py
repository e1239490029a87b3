"""Sources to train on and to test on, compared before anything is measured with them.

The numbers of their classes have to mean the same, and no image may be in two of them.
"""

import collections
import functools
import hashlib
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import ml_collections
import numpy as np
from absl import logging

from sslhsic.data import folder_source, origins, sources
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import printable

_MOST_NAMES = 5  # In a message.
# Files that are looked into, to find copies.
_NUM_SAMPLED = 1_000
_MOST_LISTED = 200_000
_MOST_CANDIDATES = 5_000
_HEAD = 4_096  # Bytes.
# Data sets have a few images twice.
_SHARE_OF_COPIES = 0.01


class Part(Protocol):
  """A part of a configuration, of which `sources.create` makes a source."""

  source: str
  split: str


class _Named(NamedTuple):
  """A source, and what to call it in a message."""

  title: str
  source: sources.Source


def create(
  train: Part, *others: Part, allow_overlap: bool = False, need_labels: bool = True
) -> list[sources.Source]:
  """The sources to train on and to validate or test on; prints what their folders hold.

  Classes of the others get the numbers that they have in the first, by their names.

  Args:
    train: what is trained on.
    others: what is tested on.
    allow_overlap: whether the same images may be in two of them.
    need_labels: whether examples have to be labelled.

  Raises:
    ValueError: one is not there or, if needed, has no labels; their classes differ; or
      they share images.
  """
  named = [
    _Named(f'{part.source} {part.split}', sources.create(part.source, part.split))
    for part in (train, *others)
  ]
  _print_descriptions(named)
  if need_labels:
    _check_labels(named)
    named = [_Named(title, labelled(title, source)) for title, source in named]
  first = named[0]
  named = [first, *(_with_classes_of(first, x, need_labels) for x in named[1:])]
  if need_labels:
    for other in named[1:]:
      _warn_of_missing_classes(first, other)
  for pair in itertools.combinations(named, 2):
    _check_overlap(*pair, _overlap(*pair), allow_overlap)
  return [source for _, source in named]


def for_pretraining(
  data: ml_collections.ConfigDict, evaluation: ml_collections.ConfigDict
) -> tuple[sources.Source, sources.Source]:
  """The sources that a pre-training is evaluated with; prints which are held out.

  Args:
    data: its `config.data`; the images of `train_split` are trained on.
    evaluation: its `config.evaluation`, with a `train_split` to fit on and a
      `test_split` to test on.

  Raises:
    ValueError: one is not there; or labelled images are tested on that are fitted or
      trained on, the latter by the online classifier.
  """
  trained, train, test = (
    _Named(f'{data.source} {split}', sources.create(data.source, split))
    for split in (data.train_split, evaluation.train_split, evaluation.test_split)
  )
  _print_descriptions([trained])
  is_labelled = train.source.num_classes and test.source.num_classes
  if is_labelled:
    # Evaluations leave the images without a label out.
    test = test._replace(source=_with_labels(test.source))
  overlap = _overlap(trained, test)
  if is_labelled:
    _check_overlap(trained, test, overlap, data.allow_overlap)
    # A split that is both trained on and fitted on is compared once.
    if train.title != trained.title:
      _check_overlap(train, test, _overlap(train, test), data.allow_overlap)
  print(f'evaluated on {test.title}: {len(test.source):,} images, {_in_words(overlap)}')
  return train.source, test.source


def _print_descriptions(named: Sequence[_Named]) -> None:
  wholes = [sources.of_whole(source) for _, source in named]
  found = dict.fromkeys(getattr(whole, 'description', '') for whole in wholes)
  for description in filter(None, found):
    print(description)


def labelled(title: str, source: sources.Source) -> sources.Source:
  """The examples of a source that have a label; warns if others are left out.

  A source without classes is taken as it is, and so is one whose labels are slow to
  read, of which `features.labelled` leaves out the others, or multi-hot.

  Args:
    title: what the source is called in messages.
    source: the examples.
  """
  found = _with_labels(source)
  if len(found) < len(source):
    logging.warning(
      '%d of the %d images of %s have no label and are left out',
      len(source) - len(found),
      len(source),
      title,
    )
  return found


def _with_labels(source: sources.Source) -> sources.Source:
  if not source.num_classes or not _has_quick_labels(source):
    return source
  rows = np.flatnonzero(source.labels >= 0)
  # Whether all are without one is for the source to say.
  return source if len(rows) in (0, len(source)) else sources.SubsetSource(source, rows)


# Classes


def _check_labels(named: Sequence[_Named]) -> None:
  for title, source in named:
    if not source.num_classes:
      raise ValueError(
        f'{title} has no labels, which are needed here; use a split with labels, or '
        'put its images into folders of classes'
      )


def _with_classes_of(first: _Named, other: _Named, need_labels: bool) -> _Named:
  """The other source, with the numbers of classes that the first has.

  Labels of images stay as they are where nobody needs them.
  """
  labelled = first if need_labels else other
  names, theirs = (_class_names(x.source) for x in (labelled, other))
  count, their_count = (x.source.num_classes for x in (labelled, other))
  # [C + 1]: the label -1 reads the last entry, which is set to -1 below.
  numbers = np.arange(their_count + 1)
  by = 'by their names'
  if names and _are_numbers_of(names, theirs):
    by = 'whose classes in order of their names the names are numbers of'
    numbers = np.array([*map(int, theirs), 0])
  elif count and their_count and names and theirs:
    numbers = _numbers(first.title, names, other.title, theirs)
  elif count and their_count and count != their_count:
    raise ValueError(
      f'{other.title} has {their_count} classes, but {first.title} has {count}'
    )
  here, there = (_annotations(x.source) for x in (first, other))
  pixels = [x.segmentation_classes for x in (here, there)]
  if all(pixels) and pixels[0] != pixels[1]:
    raise ValueError(
      f'pixels of {other.title} have the classes {_list(pixels[1])}, but pixels of '
      f'{first.title} {_list(pixels[0])}'
    )
  objects = np.arange(len(there.object_classes) + 1)
  if there.object_classes and here.object_classes:
    objects = _numbers(
      first.title, here.object_classes, other.title, there.object_classes
    )
  numbers[-1], objects[-1] = -1, -1
  is_same = names == theirs or not (names and theirs)
  if is_same and here.object_classes == there.object_classes:
    return other
  print(f'classes of {other.title} are numbered as in {first.title}, {by}')
  return other._replace(
    source=sources.RelabelledSource(
      other.source,
      numbers.astype(np.int32),
      count,
      objects.astype(np.int32) if there.object_classes else None,
      there._replace(object_classes=here.object_classes),
    )
  )


def _are_numbers_of(names: Sequence[str], theirs: Sequence[str]) -> bool:
  """Whether the others are all numbers of these, as the folders of ImageNet-V2."""
  return {*theirs} == {*map(str, range(len(names)))} != {*names}


def _numbers(
  title: str, names: Sequence[str], other: str, theirs: Sequence[str]
) -> np.ndarray:
  """The number of each class among `names`, and one more."""
  unknown = [name for name in theirs if name not in set(names)]
  if unknown:
    raise ValueError(
      f'{other} has {len(unknown)} of {len(theirs)} classes that {title} has not: '
      f'{_list(unknown)}; it has {_list(names)}. Use the same names in both'
    )
  number = {name: number for number, name in enumerate(names)}
  return np.array([*(number[name] for name in theirs), 0])


def _warn_of_missing_classes(first: _Named, other: _Named) -> None:
  """Warns of classes that the one or the other has no example of.

  Raises:
    ValueError: they have no class in common.
  """
  known = [_classes_there(x.source) for x in (first, other)]
  # Not known where labels are slow to read or multi-hot.
  if None in known:
    return
  if known[0].isdisjoint(known[1]):
    raise ValueError(
      f'{other.title} has no image of any class that {first.title} has images of; give '
      'the same names to the same classes'
    )
  names = _class_names(first.source)
  for (title, _), there, rest in (
    (other, known[1], 'scores are of the other classes alone'),
    (first, known[0], 'these classes cannot be learnt'),
  ):
    missing = sorted(known[0].union(known[1]) - there)
    if missing:
      listed = _list([names[x] if names else str(x) for x in missing])
      logging.warning(
        '%s has no image of %d of the classes: %s; %s',
        title,
        len(missing),
        listed,
        rest,
      )


def _classes_there(source: sources.Source) -> set[int] | None:
  """The classes that there are examples of; None if it takes long to find out."""
  if not _has_quick_labels(source):
    return None
  return set(np.unique(source.labels).tolist()) - {-1}


def _has_quick_labels(source: sources.Source) -> bool:
  """Whether it has one label an example, all of which are read in no time."""
  whole = source
  while isinstance(whole, sources.SubsetSource | sources.RelabelledSource):
    whole = whole.source
  return not getattr(whole, 'has_slow_labels', False) and source.labels.ndim == 1


def _class_names(source: sources.Source) -> tuple[str, ...]:
  return getattr(sources.of_whole(source), 'class_names', ())


def _annotations(source: sources.Source) -> Annotations:
  return getattr(source, 'annotations', Annotations())


def _list(names: Sequence[str]) -> str:
  more = f', … {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
  return ', '.join(map(printable, names[:_MOST_NAMES])) + more


# Images


class _Overlap(NamedTuple):
  """Images of one source that are also in another.

  Attributes:
    shared: how many.
    total: of how many that were looked at.
    are_copies: whether they are files of the same content elsewhere.
  """

  shared: int
  total: int
  are_copies: bool = False


def _overlap(first: _Named, other: _Named) -> _Overlap:
  """How many images of the other are also in the first."""
  # Origins are exact but tied to a place; a copied data set shows in its files alone.
  shared = origins.num_shared(*(sources.origins(x.source) for x in (first, other)))
  if not shared:
    copies, total = _num_copies(first.source, other.source)
    if copies:
      return _Overlap(copies, total, are_copies=True)
  return _Overlap(shared, len(other.source))


def _in_words(overlap: _Overlap) -> str:
  if not overlap.shared:
    return 'none of which is trained on'
  if overlap.are_copies:
    return (
      f'{overlap.shared:,} of the {overlap.total:,} looked at have the same content as '
      'images that are trained on'
    )
  return f'{overlap.shared:,} of which are trained on'


def _check_overlap(
  first: _Named, other: _Named, overlap: _Overlap, allow_overlap: bool
) -> None:
  """Raises an error, or warns, if images are in both.

  Raises:
    ValueError: they are, and it is not allowed.
  """
  shared, total, are_copies = overlap
  if not shared:
    return
  how = 'looked at have the same content as images of' if are_copies else 'are also in'
  message = (
    f'{shared:,} of the {total:,} images of {other.title} {how} {first.title}: scores '
    'would be of images that were trained on'
  )
  if allow_overlap or (are_copies and shared <= _SHARE_OF_COPIES * total):
    logging.warning('%s', message)
    return
  raise ValueError(
    f"{message}; use splits that share none, such as 'train[:90%]' and 'train[90%:]', "
    'or set config.data.allow_overlap=True'
  )


def _num_copies(first: sources.Source, other: sources.Source) -> tuple[int, int]:
  """How many of some files of a folder are also in another, and how many those are.

  Files have to agree in size and in their first bytes, and then as a whole.
  """
  ours, theirs = _paths(first, _MOST_LISTED), _paths(other, _NUM_SAMPLED)
  sample = {path: size for path in theirs if (size := _size(path))}
  sizes = set(sample.values())
  candidates = itertools.islice(
    (path for path in ours if _size(path) in sizes), _MOST_CANDIDATES
  )
  paths_of = collections.defaultdict(list)
  for path in candidates:
    paths_of[_head(path)].append(path)
  # Arrays and images without compression may begin alike: each is read once.
  digest = functools.cache(lambda path: hashlib.blake2b(_content(path)).digest())
  copies = sum(
    digest(path) in map(digest, paths_of.get(_head(path), ())) for path in sample
  )
  return copies, len(sample)


def _paths(source: sources.Source, most: int) -> list[str]:
  """The first files of a folder on disk, which are in random order."""
  rows = np.arange(len(source))[:most]
  while isinstance(source, sources.SubsetSource | sources.RelabelledSource):
    if isinstance(source, sources.SubsetSource):
      rows = source.rows[rows]
    source = source.source
  if not isinstance(source, folder_source.FolderSource):
    return []
  return [source.paths[row] for row in rows if '://' not in source.paths[row]]


def _size(path: str) -> int:
  """Bytes of a file; 0 if it is not there."""
  try:
    return os.path.getsize(path)
  except OSError:
    return 0


def _head(path: str) -> tuple[int, bytes]:
  return _size(path), _content(path, _HEAD)


def _content(path: str, count: int = -1) -> bytes:
  try:
    with open(path, 'rb') as file:
      return file.read(count)
  except OSError:
    return b''
