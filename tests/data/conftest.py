"""Data sets as TFDS prepares them, made up."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests import tfds_data_sets

LABEL = {'label': tfds.features.ClassLabel(num_classes=5)}
SEVERAL = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=5))
LABELS = {'labels': SEVERAL, 'labels_no_difficult': SEVERAL}
METADATA = {
  'site': tfds.features.Scalar(np.int64),
  'place': tfds.features.Tensor(shape=(2,), dtype=np.float32),
}


@pytest.fixture(scope='session')
def prepared(tmp_path_factory, encoded_image):
  """The folder where TFDS has prepared three data sets of few images.

  The blue channel of each image is its number, which gives its label: number % 5 in
  'toy' (and -1 in the split 'unlabelled'), {number % 5, 4} in 'toy_multi', where 4 is
  difficult in every second image, none in 'toy_plain', which has metadata: 'site',
  number % 3, and 'place'. Training images are numbered from 0, validation images from
  100.
  """
  directory = tmp_path_factory.mktemp('tfds')
  splits = {'train': 30, 'validation': 7}
  label = lambda number: {'label': number % 5 if number < 200 else -1}
  labels = lambda number: {
    'labels': [number % 5, 4],
    'labels_no_difficult': [x for x in (number % 5, 4) if x < 4 or number % 2],
  }
  metadata = lambda number: {'site': number % 3, 'place': np.float32([number, 0.5])}
  for arguments in (
    ('toy', LABEL, label, splits | {'unlabelled': 6}),
    ('toy_multi', LABELS, labels, splits),
    ('toy_plain', METADATA, metadata, splits),
  ):
    tfds_data_sets.prepare(directory, *arguments, encode=encoded_image)
  return directory


@pytest.fixture
def tfds_data(prepared, monkeypatch):
  """The same, where TFDS looks for its data."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
  return prepared
