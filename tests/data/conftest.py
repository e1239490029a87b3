"""Data sets as TFDS prepares them, made up."""

import io
from typing import ClassVar

import pytest
import tensorflow_datasets as tfds

LABEL = {'label': tfds.features.ClassLabel(num_classes=5)}
SEVERAL = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=5))
LABELS = {'labels': SEVERAL, 'labels_no_difficult': SEVERAL}


def _builder_class(data_set, features, make_label, counts, encode):
  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = data_set
    VERSION = tfds.core.Version('1.0.0')
    url_infos: ClassVar = {}  # TFDS would look for a file beside this one.

    def _info(self):
      image = {'image': tfds.features.Image(), 'other': tfds.features.Text()}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(image | features)
      )

    def _split_generators(self, dl_manager):
      starts = range(0, 100 * len(counts), 100)
      return {
        split: self._generate_examples(range(start, start + count))
        for start, (split, count) in zip(starts, counts.items(), strict=True)
      }

    def _generate_examples(self, numbers):
      for number in numbers:
        image = io.BytesIO(encode(number))
        yield number, {'image': image, 'other': 'text', **make_label(number)}

  return Builder


@pytest.fixture(scope='session')
def prepared(tmp_path_factory, encoded_image):
  """The folder where TFDS has prepared three data sets of few images.

  The blue channel of each image is its number, which gives its label: number % 5 in
  'toy' (and -1 in the split 'unlabelled'), {number % 5, 4} in 'toy_multi', where 4 is
  difficult in every second image, none in 'toy_plain'. Training images are numbered
  from 0, validation images from 100.
  """
  directory = tmp_path_factory.mktemp('tfds')
  splits = {'train': 30, 'validation': 7}
  label = lambda number: {'label': number % 5 if number < 200 else -1}
  labels = lambda number: {
    'labels': [number % 5, 4],
    'labels_no_difficult': [x for x in (number % 5, 4) if x < 4 or number % 2],
  }
  for arguments in (
    ('toy', LABEL, label, splits | {'unlabelled': 6}),
    ('toy_multi', LABELS, labels, splits),
    ('toy_plain', {}, lambda number: {}, splits),
  ):
    builder = _builder_class(*arguments, encode=encoded_image)(
      data_dir=directory, file_format='array_record'
    )
    builder.download_and_prepare()
  return directory


@pytest.fixture
def tfds_data(prepared, monkeypatch):
  """The same, where TFDS looks for its data."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
  return prepared
