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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sslhsic.data import arguments, splits
from sslhsic.data.errors import DecodeError, one_line, printable
from sslhsic.data.origins import Origin

if TYPE_CHECKING:
  import datasets

_USAGE = 'huggingface:PATH, PATH what save_to_disk wrote or a folder of Parquet files'


@dataclasses.dataclass(frozen=True, eq=False)
class HuggingFaceSource:
  """Images with one label each, or with none.

  A pickled source holds the names of the Arrow files, not the images.

  Attributes:
    title: name and split, for messages.
    images: one feature, as it is stored.
    numbers: one feature, the label; None without labels.
    num_classes: 0 without labels.
    class_names: of the classes; empty where they have numbers only.
    origin: the directory, and the rows in it.
    description: why there are no labels, if this is not obvious.
  """

  title: str
  images: 'datasets.Dataset'
  numbers: 'datasets.Dataset | None'
  num_classes: int
  class_names: tuple[str, ...]
  origin: Origin
  description: str

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | bytes]:
    (image,) = self.images[index].values()
    label = -1
    if self.numbers is not None:
      (label,) = self.numbers[index].values()
    return {'image': _stored(image), 'label': _known(label, self.num_classes)}

  def is_unlabelled(self) -> bool:
    """Whether no example has a label, as in many test splits of the hub."""

    def has_none(part: slice) -> bool:
      (column,) = self.numbers[part].values()
      return all(label is None or label < 0 for label in column)

    # The first few tell soon that there are labels.
    return self.numbers is None or (has_none(slice(100)) and has_none(slice(None)))

  def name(self, index: int) -> str:
    """The number of an example in its split."""
    return f'example {index} of {self.title}'

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """[n] int32; no image is read."""
    if self.numbers is None:
      return np.full(len(self), -1, np.int32)
    (column,) = self.numbers[:].values()
    return np.array([_known(label, self.num_classes) for label in column], np.int32)


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
  features = next(iter(there.values())).features
  image_key = _image_key(features, chosen.image, source)
  labelling = _labelling(features, there, chosen.label, source)
  sizes = {name: len(rows) for name, rows in there.items()}
  parts = splits.ranges(splits.canonical(split, names), sizes, source)
  first = dict(
    zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False)
  )
  rows = [first[name] + np.arange(sizes[name])[part] for name, part in parts]
  images = _joined(there, parts, image_key)
  if isinstance(features[image_key], _library().Image):
    images = images.cast_column(image_key, _library().Image(decode=False))
  else:  # Lists of lists would take several times as long.
    images = images.with_format('numpy', dtype=np.uint8)
  made = HuggingFaceSource(
    f'{source}, {split}',
    images,
    _joined(there, parts, labelling.key) if labelling.key else None,
    labelling.num_classes,
    labelling.class_names,
    Origin(os.path.realpath(path), np.concatenate(rows)),
    labelling.description,
  )
  if made.is_unlabelled():
    return dataclasses.replace(made, num_classes=0, class_names=())
  return made


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
    there = {str(there.split or 'train'): there}
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


class _Labelling(NamedTuple):
  """The feature that holds the labels, and their classes."""

  key: str | None
  num_classes: int = 0
  class_names: tuple[str, ...] = ()
  description: str = ''


def _labelling(
  features: Mapping[str, Any],
  there: Mapping[str, 'datasets.Dataset'],
  chosen: str | None,
  source: str,
) -> _Labelling:
  """How examples are labelled: by the class, or by a whole number."""
  library = _library()
  found = [key for key, x in features.items() if isinstance(x, library.ClassLabel)]
  key = chosen or ('label' if 'label' in features else None)
  if key is None and len(found) == 1:
    key = found[0]
  if chosen and chosen not in features:
    raise ValueError(
      f'{source} has no feature {chosen!r} for its label; use one of '
      f'{", ".join(features)}'
    )
  if key is None:
    several = f'{source}: no labels, since there are several, {", ".join(found)}; name '
    return _Labelling(None, description=f'{several}one: ?label=…' if found else '')
  feature = features[key]
  if isinstance(feature, library.ClassLabel):
    return _Labelling(key, feature.num_classes, tuple(feature.names))
  if 'int' in str(getattr(feature, 'dtype', '')):
    # An example without a label has none, or -1.
    found = [x for rows in there.values() for x in rows.unique(key) if x is not None]
    return _Labelling(key, max(found, default=-1) + 1)
  return _Labelling(
    None,
    description=f'{source}: no labels, since the feature {key!r} is {feature}; a '
    'ClassLabel or whole numbers are read (class_encode_column makes them)',
  )


def _joined(
  there: Mapping[str, 'datasets.Dataset'], parts: list[tuple[str, slice]], key: str
) -> 'datasets.Dataset':
  """One feature of the rows of all parts."""
  chosen = [
    there[name].select_columns(key).select(range(len(there[name]))[part])
    for name, part in parts
  ]
  return _library().concatenate_datasets(chosen)


def _stored(image: Any) -> np.ndarray | bytes:
  """The image of a row: an array, or the bytes of a file in the row or beside it."""
  if isinstance(image, np.ndarray):
    return image
  if not image or (image['bytes'] is None and not image['path']):
    raise DecodeError('it has no image')
  if image['bytes'] is not None:
    return image['bytes']
  return pathlib.Path(image['path']).read_bytes()


def _known(label: int | None, num_classes: int) -> np.int32:
  """A class that there is; -1 of an example without a label."""
  label = -1 if label is None else int(label)
  if num_classes and not -1 <= label < num_classes:
    raise DecodeError(f'its label is {label}; classes are 0 to {num_classes - 1}')
  return np.int32(label)
