"""Objects, depth and metadata of data sets of TensorFlow Datasets."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_feature_pb2

from sslhsic.data import images
from sslhsic.data.annotations import Annotations
from sslhsic.data.errors import DecodeError

_BOX, _CLASS, _AREA = 'objects/bbox', 'objects/label', 'objects/area'
_NUMBERS = tfds.features.ClassLabel, tfds.features.Scalar, tfds.features.Tensor
# Objects that are marked so are to be ignored.
_DIFFICULT, _CROWD = 'objects/is_difficult', 'objects/is_crowd'


def describe(features: tfds.features.FeaturesDict) -> Annotations:
  """What the examples hold, judged by the features of a data set."""
  kinds, classes, features = set(), (), dict(features.items())
  objects = features.get('objects')
  if isinstance(objects, tfds.features.Sequence) and _has_boxes(objects.feature):
    kinds.add('boxes')
    classes = tuple(objects['label'].names)
  depth = features.get('depth')
  if isinstance(depth, tfds.features.Tensor) and len(depth.shape) == 2:
    kinds.add('depth')
  return Annotations(frozenset(kinds), object_classes=classes)


def fields(features: tfds.features.FeaturesDict) -> dict[str, str]:
  """The features that can be metadata, and the kind of list that records hold them in.

  They are whole numbers and classes, which are categories, and floats, also several.
  """
  found = {}
  for name, feature in features.items():
    # Exactly these: other kinds of tensors are encoded.
    if type(feature) not in _NUMBERS:
      continue
    kind = np.dtype(feature.np_dtype).kind
    if kind in 'iub' and feature.shape == ():
      found[name] = 'int64_list'
    if kind == 'f' and (feature.shape == () or len(feature.shape) == 1):
      found[name] = 'float_list'
  return found


def field(
  feature: Mapping[str, tf_feature_pb2.Feature], name: str, kind: str
) -> np.ndarray:
  """A field of an example: an int32 number of a category, or float32 [k].

  Raises:
    DecodeError: the record does not have it, or its number is no int32.
  """
  values = getattr(feature[name], kind).value if name in feature else ()
  if not len(values):
    raise DecodeError(f'its record has no {name}')
  if kind == 'int64_list':
    return _int32(values[:1], name)[0]
  return np.array(values, np.float32)


def _has_boxes(objects: tfds.features.FeatureConnector) -> bool:
  if not isinstance(objects, tfds.features.FeaturesDict):
    return False
  found = dict(objects.items())
  is_box = isinstance(found.get('bbox'), tfds.features.BBoxFeature)
  return is_box and isinstance(found.get('label'), tfds.features.ClassLabel)


def read(
  feature: Mapping[str, tf_feature_pb2.Feature], annotations: Annotations, image: bytes
) -> dict[str, np.ndarray]:
  """Objects and depth of an example, as `Annotations` describes them.

  Args:
    feature: of the example.
    annotations: which of them there are.
    image: the example's, encoded, of which the size is needed.

  Raises:
    DecodeError: the image is none, or its targets have other lengths than they should.
  """
  if not annotations.kinds:
    return {}
  height, width = images.size(image)
  found = {}
  if 'depth' in annotations.kinds:
    depth = _floats(feature['depth'])
    if len(depth) != height * width:
      raise DecodeError(
        f'depth has {len(depth):,} values, the image has {height}×{width} pixels'
      )
    found['depth'] = depth.reshape(height, width)
  if 'boxes' in annotations.kinds:
    found |= _objects(feature, height, width)
    found['annotated_size'] = np.array([height, width])
  return found


def _objects(
  feature: Mapping[str, tf_feature_pb2.Feature], height: int, width: int
) -> dict[str, np.ndarray]:
  classes = _int32(feature[_CLASS].int64_list.value, _CLASS)
  numbers = _floats(feature[_BOX])
  if len(numbers) != 4 * len(classes):
    raise DecodeError(
      f'{_BOX} has {len(numbers)} numbers for {len(classes)} objects; it has to be '
      'four for each'
    )
  relative = numbers.reshape(-1, 4)  # (y1, x1, y2, x2) of 1.
  boxes = relative[:, [1, 0, 3, 2]] * np.array([width, height] * 2, np.float32)
  if _DIFFICULT in feature:
    # PASCAL VOC counts pixels from 1, and gives the first and the last.
    boxes[:, :2] = np.maximum(boxes[:, :2] - 1, 0)
  ignore = np.zeros(len(boxes), bool)
  for key in (_DIFFICULT, _CROWD):
    if key in feature:
      ignore |= _of_objects(feature, key, bool, len(boxes))
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  if _AREA in feature:
    area = _of_objects(feature, _AREA, np.float32, len(boxes))
  objects = {'boxes': boxes, 'classes': classes, 'ignore': ignore, 'area': area}
  # There are a few in COCO that have no extent.
  has_extent = (boxes[:, 2:] != boxes[:, :2]).all(axis=1)
  return {name: values[has_extent] for name, values in objects.items()}


def _of_objects(
  feature: Mapping[str, tf_feature_pb2.Feature], key: str, dtype: type, count: int
) -> np.ndarray:
  """One whole number of each object."""
  values = np.array(feature[key].int64_list.value, dtype)
  if len(values) != count:
    raise DecodeError(f'{key} has {len(values)} values for {count} objects')
  return values


def _int32(values: Sequence[int], name: str) -> np.ndarray:
  """Numbers of classes or categories, which JAX computes with in 32 bits."""
  numbers = np.array(values, np.int64)
  bad = numbers[numbers != numbers.astype(np.int32)]
  if len(bad):
    raise DecodeError(f'{name} is {bad[0]}, which is no int32; use smaller numbers')
  return numbers.astype(np.int32)


def _floats(feature: tf_feature_pb2.Feature) -> np.ndarray:
  """The numbers of a feature, float32.

  To take them one by one is slow; serialised, they are at the end, four bytes each.
  """
  floats = feature.float_list
  count = len(floats.value)
  encoded = floats.SerializeToString()
  return np.frombuffer(encoded, '<f4', count, len(encoded) - 4 * count)
