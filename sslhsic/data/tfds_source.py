"""Data sets of TensorFlow Datasets, read without TensorFlow.

They must be prepared in ArrayRecord format, which gives access to any example. Records
are read as bytes and the image in them stays encoded: the loader decodes it. Objects
('objects', with 'bbox' and 'label') and depth are read, too: see `tfds_annotations`.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import message
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from sslhsic.data import origins, splits, tfds_annotations, tfds_metadata
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import DecodeError, one_line
from sslhsic.data.origins import Origin

# Labels of objects that are not marked difficult, in PASCAL VOC.
_NOT_DIFFICULT = 'labels_no_difficult'
# Records that are read ahead to find a label, and how many at the same time.
_CHUNK, _THREADS = 1024, 16
_MOST_NAMES = 100_000  # TFDS would make up names for millions of classes.


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
  """Images with one label, with several ('multi-hot', [C] int32), or with none.

  In PASCAL VOC a class that only difficult objects have is -1, to be ignored.

  Attributes:
    title: name and split, for messages.
    records: serialised `tf.train.Example`s.
    label_key: the feature that holds the label; None without labels.
    multi_label: whether it holds any number of them.
    num_classes: C; 0 without labels.
    class_names: of the classes; empty where they have numbers only.
    annotations: what else the examples hold.
    directory: of the data set.
    rows: of the examples, if all splits lie one after the other.
    description: why there are no labels, if this is not obvious.
    fields: features that can be metadata, see `tfds_annotations.fields`.
    metadata: one of them that examples hold; empty: none.
  """

  title: str
  records: Sequence[bytes]
  label_key: str | None
  multi_label: bool
  num_classes: int
  class_names: tuple[str, ...]
  annotations: Annotations
  directory: str
  rows: tuple[range, ...]
  description: str
  fields: Mapping[str, str]
  metadata: str = ''

  # To know them, all records are read.
  has_slow_labels: ClassVar[bool] = True

  @property
  def origin(self) -> Origin:
    """The directory, and the rows in it."""
    rows = [np.arange(part.start, part.stop) for part in self.rows]
    return Origin(origins.place(self.directory), np.concatenate(rows))

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict:
    feature = self._features(index)
    image = _first(feature, 'image', 'bytes_list')
    more = tfds_annotations.read(feature, self.annotations, image)
    if self.metadata:
      kind = self.fields[self.metadata]
      more['metadata'] = tfds_annotations.field(feature, self.metadata, kind)
    return {'image': image, 'label': self._label(feature)} | more

  def with_metadata(self, field: str) -> 'TfdsSource':
    """The source with a field of its metadata, see `source.with_metadata`."""
    if field not in self.fields:
      raise ValueError(
        f'{self.title} has no feature {field!r} that is a class or a number; use one '
        f'of {", ".join(sorted(self.fields)) or "none"}'
      )
    return dataclasses.replace(self, metadata=field)

  def is_unlabelled(self) -> bool:
    """Whether no example has a label, as in STL-10's split 'unlabelled'."""
    if self._has_label(0):
      return False
    # Mostly the first has one; else all are read, up to the first that does.
    starts = range(0, len(self), _CHUNK)
    with futures.ThreadPoolExecutor(_THREADS) as threads:
      return not any(
        any(threads.map(self._has_label, range(len(self))[start : start + _CHUNK]))
        for start in starts
      )

  def name(self, index: int) -> str:
    """What to call an example."""
    return f'example {index} of {self.title}'

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """[n] int32, or [n, C]; reads every record, for which a large data set is slow."""
    return np.stack([self._label(self._features(i)) for i in range(len(self))])

  def _features(self, index: int) -> Mapping[str, tf_feature_pb2.Feature]:
    try:
      record = self.records[index]
      return tf_example_pb2.Example.FromString(record).features.feature
    except (RuntimeError, LookupError, ValueError, message.DecodeError) as error:
      raise DecodeError(f'its record is damaged: {one_line(error)}') from error

  def _has_label(self, index: int) -> bool:
    try:
      return _first(self._features(index), self.label_key, 'int64_list') >= 0
    except DecodeError:  # Of a damaged record, who reads its image is told.
      return False

  def _label(self, feature: Mapping[str, tf_feature_pb2.Feature]) -> np.ndarray:
    if self.label_key is None:
      return np.int32(-1)
    if not self.multi_label:
      return self._known(_first(feature, self.label_key, 'int64_list'))
    values = (
      feature[self.label_key].int64_list.value if self.label_key in feature else ()
    )
    label = np.zeros(self.num_classes, np.int32)
    label[[self._known(value, 0) for value in values]] = 1
    if _NOT_DIFFICULT in feature:
      clear = np.isin(
        np.arange(self.num_classes), feature[_NOT_DIFFICULT].int64_list.value
      )
      label[(label == 1) & ~clear] = -1
    return label

  def _known(self, value: int, lowest: int = -1) -> np.int32:
    """A class that there is; or -1, of an example without a label."""
    if self.num_classes and not lowest <= value < self.num_classes:
      raise DecodeError(
        f'{self.label_key} is {value}; classes are 0 to {self.num_classes - 1}'
      )
    return np.int32(value)


def _first(
  feature: Mapping[str, tf_feature_pb2.Feature], key: str, kind: str
) -> bytes | int:
  """The only value of a feature."""
  values = getattr(feature[key], kind).value if key in feature else ()
  if not len(values):
    raise DecodeError(f'its record has no {key}')
  return values[0]


def create(name: str, split: str) -> TfdsSource:
  """A data set that TFDS has prepared.

  Args:
    name: as TFDS writes it, 'cifar10' or 'imagenette/160px-v2', found where TFDS keeps
      its data (the environment's TFDS_DATA_DIR, or ~/tensorflow_datasets); or the
      directory of a prepared version, which may be on a bucket.
    split: parts in TFDS's syntax.

  Raises:
    ValueError: it is not prepared, not in ArrayRecord format, has no such split or no
      images.
  """
  builder = tfds_metadata.builder(name)
  source = f'tfds:{name}'
  sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
  parts = splits.ranges(split, sizes, source)  # One clear line; TFDS's has several.
  labelling = _labelling(builder.info.features, source)
  made = TfdsSource(
    f'{source}, {split}',
    _records(builder, split, source),
    labelling.key,
    labelling.multi_label,
    labelling.num_classes,
    labelling.class_names,
    tfds_annotations.describe(builder.info.features),
    directory=os.fspath(builder.data_path),
    rows=tuple(_rows(sizes, parts)),
    description=labelling.description,
    fields=tfds_annotations.fields(builder.info.features),
  )
  if labelling.key and not made.multi_label and _is_unlabelled(made):
    return dataclasses.replace(made, num_classes=0, class_names=())
  return made


# Whether splits that were opened are unlabelled, by directory and rows.
_known: dict[tuple[str, tuple[range, ...]], bool] = {}


def _is_unlabelled(source: TfdsSource) -> bool:
  """As the source says, which is asked once: a program opens a split several times."""
  key = source.directory, source.rows
  if key not in _known:
    _known[key] = source.is_unlabelled()
  return _known[key]


def _records(
  builder: tfds.core.DatasetBuilder, split: str, source: str
) -> Sequence[bytes]:
  directory = os.fspath(builder.data_path)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    data_source = builder.as_data_source(split, deserialize_method=raw)
    # Without what TFDS wraps around, which is slow.
    records = data_source.data_source
    # Opens a file now, so that a damaged data set shows before anything is computed.
    _ = records[0]
  except NotImplementedError as error:
    full_name = builder.info.full_name  # With the version.
    data_dir = directory.removesuffix(f'/{full_name}')
    how = tfds_metadata.how_to_prepare(full_name.rpartition('/')[0], data_dir)
    raise ValueError(
      f'{source} is prepared in another format than array_record; remove {directory} '
      f'and {how}'
    ) from error
  except Exception as error:  # A file is missing or damaged; types vary.
    raise ValueError(
      f'{source} cannot be read from {directory}: {one_line(error)}; prepare it anew'
    ) from error
  return records


def _rows(sizes: Mapping[str, int], parts: list[tuple[str, slice]]) -> Iterator[range]:
  """Numbers of the examples of parts, if all splits lie one after the other."""
  starts = dict(
    zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False)
  )
  for name, part in parts:
    yield range(starts[name], starts[name] + sizes[name])[part]


class _Labelling(NamedTuple):
  """Which feature holds labels, whether it holds several, and of which classes."""

  key: str | None
  multi_label: bool = False
  num_classes: int = 0
  class_names: tuple[str, ...] = ()
  description: str = ''


def _labelling(features: tfds.features.FeaturesDict, source: str) -> _Labelling:
  """How examples are labelled; not at all, if the feature is of another kind."""
  found = {}
  if isinstance(features, tfds.features.FeaturesDict):
    found = dict(features.items())
  if not isinstance(found.get('image'), tfds.features.Image):
    raise ValueError(
      f"{source} has no feature 'image' that is an image, only {', '.join(found)}; use "
      'a data set of images'
    )
  for key in ('label', 'labels'):
    if key not in found:
      continue
    feature, multi_label = found[key], False
    if isinstance(feature, tfds.features.Sequence):
      feature, multi_label = feature.feature, True
    if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes:
      count = feature.num_classes
      names = feature.names if count <= _MOST_NAMES else ()
      # TFDS calls classes '0', '1', … where only their number is given.
      is_number = all(name == str(place) for place, name in enumerate(names))
      return _Labelling(key, multi_label, count, () if is_number else tuple(names))
    kind = type(found[key]).__name__
    return _Labelling(
      None,
      description=f'{source}: no labels, since the feature {key!r} is a {kind}; a '
      'ClassLabel or a Sequence of it is read',
    )
  return _Labelling(None)
