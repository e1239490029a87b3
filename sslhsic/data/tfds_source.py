"""Data sets of TensorFlow Datasets, read without TensorFlow.

They must be prepared in ArrayRecord format, which gives access to any example. Records
are read as bytes and the image in them stays encoded: the loader decodes it, to RGB. An
image whose feature has one channel is decoded here, to one channel. Objects ('objects',
with 'bbox' and 'label') and depth are read, too: see `tfds_annotations`.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from sslhsic.data import images, splits, tfds_annotations
from sslhsic.data.annotations import Annotations

# Labels of objects that are not marked difficult, in PASCAL VOC.
_NOT_DIFFICULT = 'labels_no_difficult'


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
    annotations: what else the examples hold.
    is_gray: whether images have one channel.
  """

  title: str
  records: Sequence[bytes]
  label_key: str | None
  multi_label: bool
  num_classes: int
  annotations: Annotations
  is_gray: bool

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict:
    feature = self._features(index)
    image = feature['image'].bytes_list.value[0]
    more = tfds_annotations.read(feature, self.annotations, image)
    if self.is_gray:
      image = images.decode_gray(image)
    return {'image': image, 'label': self._label(feature)} | more

  def name(self, index: int) -> str:
    """What to call an example."""
    return f'example {index} of {self.title}'

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """[n] int32, or [n, C]; reads every record, for which a large data set is slow."""
    return np.stack([self._label(self._features(i)) for i in range(len(self))])

  def _features(self, index: int):
    return tf_example_pb2.Example.FromString(self.records[index]).features.feature

  def _label(self, feature) -> np.ndarray:
    if self.label_key is None:
      return np.int32(-1)
    values = feature[self.label_key].int64_list.value
    if not self.multi_label:
      return np.int32(values[0])
    classes = np.arange(self.num_classes)
    label = np.isin(classes, values).astype(np.int32)
    if _NOT_DIFFICULT in feature:
      clear = np.isin(classes, feature[_NOT_DIFFICULT].int64_list.value)
      label[(label == 1) & ~clear] = -1
    return label


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
  builder = _builder(name)
  source = f'tfds:{name}'
  sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
  splits.ranges(split, sizes, source)  # Raises one clear line; TFDS's has several.
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    data_source = builder.as_data_source(split, deserialize_method=raw)
  except NotImplementedError as error:
    full_name = builder.info.full_name  # With the version.
    directory = os.fspath(builder.data_path)
    data_dir = directory.removesuffix(f'/{full_name}')
    raise ValueError(
      f'{source} is prepared in another format than array_record; remove {directory} '
      f'and {_how_to_prepare(full_name.rpartition("/")[0], data_dir)}'
    ) from error
  records = data_source.data_source  # Without what TFDS wraps around, which is slow.
  labelling = _labelling(builder.info.features, source)
  annotations = tfds_annotations.describe(builder.info.features)
  is_gray = builder.info.features['image'].shape[-1] == 1
  made = TfdsSource(f'{source}, {split}', records, *labelling, annotations, is_gray)
  if not made.multi_label and made[0]['label'] < 0:  # Such as STL-10's 'unlabelled'.
    return dataclasses.replace(made, num_classes=0)
  return made


def _builder(name: str) -> tfds.core.DatasetBuilder:
  if name.startswith('/') or '://' in name:
    if not (epath.Path(name) / 'dataset_info.json').exists():
      raise ValueError(
        f'tfds:{name} holds no prepared data set; give the directory of a version, '
        'with dataset_info.json in it, or use tfds:NAME'
      )
    return tfds.builder_from_directory(name)
  try:
    return read_only_builder.builder_from_files(name, data_dir=_data_dir())
  except tfds.core.DatasetNotFoundError as error:
    raise ValueError(
      f'tfds:{name} is not prepared in {_data_dir()}; '
      f'{_how_to_prepare(name, _data_dir())}'
    ) from error


def _data_dir() -> str:
  """Where TFDS keeps what it prepares."""
  directory = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  return os.fspath(epath.Path(directory).expanduser())


def _how_to_prepare(name: str, data_dir: str) -> str:
  # Not 'tfds build', which does not start without Apache Beam.
  return (
    'prepare it with: python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
    '.download_and_prepare()" (for this alone TensorFlow is needed: pip install '
    'tensorflow importlib_resources)'
  )


def _labelling(
  features: tfds.features.FeaturesDict, source: str
) -> tuple[str | None, bool, int]:
  """The feature that holds labels, whether it holds several, number of classes."""
  if 'image' not in features:
    raise ValueError(
      f"{source} has no feature 'image', only {', '.join(features)}; use a data set "
      'of images'
    )
  if 'label' in features:
    return 'label', False, features['label'].num_classes
  if 'labels' in features:
    return 'labels', True, features['labels'].feature.num_classes
  return None, False, 0
