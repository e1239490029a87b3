"""Data sets of Hugging Face that are on disk, read by its library `datasets`.

    PATH                 what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote
    PATH                 a folder of Parquet files, as the hub has them

Arrow files are mapped into memory. The library converts Parquet files to Arrow once, in
its own cache (the environment's HF_DATASETS_CACHE). Nothing is downloaded.

The image is the feature 'image', or the only one that is an image; or an array of uint8
[H, W, C] with any number of channels. The label is the feature 'label', or the only
`ClassLabel`. Options name others: `huggingface:PATH?image=img&label=fine_label`.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sslhsic.data import arguments, splits
from sslhsic.data.errors import DecodeError, one_line, printable
from sslhsic.data.origins import Origin

if TYPE_CHECKING:
  import datasets

_USAGE = 'huggingface:PATH, PATH what save_to_disk wrote or a folder of Parquet files'


# Labels are int32; a classifier has an output for each class.
_MOST_CLASSES = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class HuggingFaceSource:
  """Images with one label each, or with none.

  A pickled source holds the names of the Arrow files, not the images.

  Attributes:
    title: name and split, for messages.
    images: one feature, as it is stored.
    numbers: [n] int64, of the classes; -1 where there is none.
    num_classes: 0 without labels.
    class_names: of the classes; empty where they have numbers only.
    origin: the directory, and the rows in it.
    description: why there are no labels, if this is not obvious.
  """

  title: str
  images: 'datasets.Dataset'
  numbers: np.ndarray
  num_classes: int
  class_names: tuple[str, ...]
  origin: Origin
  description: str

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]:
    (image,) = self.images[index].values()
    return {'image': _stored(image), 'label': _known(self.numbers[index])}

  def name(self, index: int) -> str:
    """The number of an example in its split."""
    return f'example {index} of {self.title}'

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """[n] int32; no image is read."""
    return np.array([_known(number) for number in self.numbers], np.int32)


def create(argument: str, split: str) -> HuggingFaceSource:
  """A data set on disk.

  Args:
    argument: the path of its folder; and options, after a '?'.
    split: parts in TFDS's syntax; 'val' and 'validation' are the same.

  Raises:
    ValueError: the library is not installed, there is no such data set or split, or it
      is not clear which feature is the image.
  """
  path, chosen = _parse(argument)
  source = f'huggingface:{printable(path)}'
  loaded = _load(path, source)
  names = splits.called(loaded)
  there = {names[name]: rows for name, rows in loaded.items()}
  sizes = {name: len(rows) for name, rows in there.items()}
  parts = splits.ranges(splits.canonical(split, names), sizes, source)
  labelling = _labelling(there, parts, chosen.label, source)
  first = dict(
    zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False)
  )
  rows = [first[name] + np.arange(sizes[name])[part] for name, part in parts]
  return HuggingFaceSource(
    f'{source}, {split}',
    _images(there, parts, chosen.image, source),
    labelling.numbers,
    labelling.num_classes,
    labelling.class_names,
    Origin(os.path.realpath(path), np.concatenate(rows)),
    labelling.description,
  )


class _Options(NamedTuple):
  """Names of features, where they are given."""

  image: str | None = None
  label: str | None = None


def _parse(argument: str) -> tuple[str, _Options]:
  """Path and options of a source's name."""
  path, given = arguments.folder_and_options(argument, _USAGE)
  options = _Options()
  for option in given:
    key, _, value = option.partition('=')
    if key not in _Options._fields or not value:
      raise ValueError(
        f"unknown option {option!r} of a data set of Hugging Face; use 'image=FEATURE' "
        "or 'label=FEATURE'"
      )
    options = options._replace(**{key: value})
  return path, options


def _load(path: str, source: str) -> dict[str, 'datasets.Dataset']:
  """The splits by their name."""
  library = _library()
  library.disable_progress_bars()
  try:
    if any(os.path.exists(f'{path}/{x}') for x in ('state.json', 'dataset_dict.json')):
      there = library.load_from_disk(path)
    elif next(pathlib.Path(path).rglob('*.parquet'), None):
      there = library.load_dataset(path)
    else:
      raise ValueError('there is neither a dataset_dict.json or state.json nor Parquet')
  except Exception as error:  # Files are missing or damaged; types vary.
    raise ValueError(
      f'{source} is no data set that can be read: {one_line(error)}'
    ) from error
  if isinstance(there, library.Dataset):
    name = str(there.split or 'train')
    # Saved from a part, the name is the part, as 'train[:50%]'.
    there = {name if re.fullmatch(r'[a-zA-Z]\w*', name) else 'train': there}
  return dict(there)


def _library() -> Any:
  try:
    import datasets
  except ImportError as error:
    raise ValueError(
      'a data set of Hugging Face needs its library; install it with pip install '
      "'.[huggingface]'"
    ) from error
  return datasets


def _image_key(features: Mapping[str, Any], chosen: str | None, source: str) -> str:
  """The feature that is the image."""
  library = _library()
  is_array = lambda x: isinstance(x, library.Array3D) and x.dtype == 'uint8'
  found = [
    key
    for key, feature in features.items()
    if isinstance(feature, library.Image) or is_array(feature)
  ]
  key = chosen or ('image' if 'image' in found else found[0] if len(found) == 1 else '')
  if key in found:
    return key
  what = ', '.join(found) or 'none'
  raise ValueError(
    f'{source}: features that are images (Image, or Array3D of uint8 [H, W, C]) are '
    f'{what}, of {", ".join(features)}; name one: {source}?image=FEATURE'
  )


def _images(
  there: Mapping[str, 'datasets.Dataset'],
  parts: list[tuple[str, slice]],
  chosen: str | None,
  source: str,
) -> 'datasets.Dataset':
  """The images of all parts, not decoded."""
  library, features = _library(), there[parts[0][0]].features
  key = _image_key(features, chosen, source)
  try:
    images = library.concatenate_datasets(
      [
        there[name].select_columns(key).select(range(len(there[name]))[part])
        for name, part in parts
      ]
    )
  except ValueError as error:  # Features differ.
    raise ValueError(
      f'{source}: the splits {", ".join(dict(parts))} cannot be joined: '
      f'{one_line(error)}; use one of them, or store {key!r} alike in all'
    ) from error
  if isinstance(features[key], library.Image):
    return images.cast_column(key, library.Image(decode=False))
  # Lists of lists would take several times as long.
  return images.with_format('numpy', dtype=np.uint8)


class _Labelling(NamedTuple):
  """Numbers of the classes of all parts, [n] int64, and what these classes are."""

  numbers: np.ndarray
  num_classes: int = 0
  class_names: tuple[str, ...] = ()
  description: str = ''


def _labelling(
  there: Mapping[str, 'datasets.Dataset'],
  parts: list[tuple[str, slice]],
  chosen: str | None,
  source: str,
) -> _Labelling:
  """How examples are labelled: by the class, or by a whole number.

  A class has the same number in all splits, also where each has names of its own.
  """
  key, description = _label_key(there, chosen, source)
  names = _class_names(there, key)
  numbers = {name: _numbers(rows, key, names, source) for name, rows in there.items()}
  found = np.concatenate([numbers[name][part] for name, part in parts])
  if found.max() < 0:
    why = description or _why_unlabelled(there, parts, key, source)
    return _Labelling(np.full(len(found), -1), description=why)
  highest = max(int(x.max(initial=-1)) for x in numbers.values())
  if highest >= _MOST_CLASSES:
    raise ValueError(
      f'{source}: the feature {key!r} has the number {highest} of a class; number the '
      'classes from 0 (class_encode_column does)'
    )
  return _Labelling(found, len(names) or highest + 1, names)


def _label_key(
  there: Mapping[str, 'datasets.Dataset'], chosen: str | None, source: str
) -> tuple[str, str]:
  """The feature that holds the labels, of some split at least; or '' and why."""
  features: dict[str, Any] = {}
  for rows in there.values():
    features = dict(rows.features) | features
  if chosen and chosen not in features:
    raise ValueError(
      f'{source} has no feature {chosen!r} for its label; use one of '
      f'{", ".join(features)}'
    )
  if chosen or 'label' in features:
    return chosen or 'label', ''
  is_class = lambda feature: isinstance(feature, _library().ClassLabel)
  found = [key for key, feature in features.items() if is_class(feature)]
  if len(found) == 1:
    return found[0], ''
  several = f'{source}: no labels, since there are several, {", ".join(found)}; name '
  return '', f'{several}one: ?label=…' if found else ''


def _class_names(there: Mapping[str, 'datasets.Dataset'], key: str) -> tuple[str, ...]:
  """The names of the classes, in their own order if all splits have the same."""
  features = [rows.features.get(key) for rows in there.values()]
  found = {tuple(x.names) for x in features if isinstance(x, _library().ClassLabel)}
  return next(iter(found)) if len(found) == 1 else tuple(sorted(set().union(*found)))


def _numbers(
  rows: 'datasets.Dataset', key: str, names: tuple[str, ...], source: str
) -> np.ndarray:
  """Numbers of the classes of a split, [n] int64, among the names if there are any."""
  feature = rows.features.get(key)
  if not _is_label(feature):
    return np.full(len(rows), -1)
  column = rows.select_columns(key).with_format('arrow')[:][key]
  # An example without a label has none, or -1.
  numbers = column.cast('int64', safe=False).fill_null(-1).to_numpy()
  own = tuple(getattr(feature, 'names', names))
  if names and numbers.max(initial=-1) >= len(own):
    raise ValueError(
      f'{source}: the feature {key!r} has the number {numbers.max()} of a class; its '
      f'classes are 0 to {len(own) - 1}: correct it'
    )
  if own == names:
    return numbers
  number = {name: place for place, name in enumerate(names)}
  renumbered = np.array([number[name] for name in own])
  return np.where(numbers < 0, numbers, renumbered[np.maximum(numbers, 0)])


def _is_label(feature: Any) -> bool:
  """Whether a feature is a class, or a whole number."""
  library = _library()
  is_whole = isinstance(feature, library.Value) and 'int' in feature.dtype
  return is_whole or isinstance(feature, library.ClassLabel)


def _why_unlabelled(
  there: Mapping[str, 'datasets.Dataset'],
  parts: list[tuple[str, slice]],
  key: str,
  source: str,
) -> str:
  """Why examples have no label, or '' if there is nothing to explain."""
  for name in dict(parts) if key else ():
    feature = there[name].features.get(key)
    if feature is None:
      return f'{source}: no labels, since the split {name!r} has no feature {key!r}'
    if not _is_label(feature):
      return (
        f'{source}: no labels, since the feature {key!r} is {feature}; a ClassLabel or '
        'whole numbers are read (class_encode_column makes them)'
      )
  return ''


def _stored(image: Any) -> np.ndarray | bytes:
  """The image of a row: an array, or the bytes of a file in the row or beside it."""
  if isinstance(image, np.ndarray):
    return image
  if not image or (image['bytes'] is None and not image['path']):
    raise DecodeError('it has no image')
  if image['bytes'] is not None:
    return image['bytes']
  return pathlib.Path(image['path']).read_bytes()


def _known(number: np.int64) -> np.int32:
  """The number of a class; -1 of an example without a label."""
  if number < -1:
    raise DecodeError(f'its label is {number}; use -1 where there is none')
  return np.int32(number)
