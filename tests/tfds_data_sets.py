"""Makes small data sets in the format of TFDS."""

import io
from typing import ClassVar

import tensorflow_datasets as tfds


def prepare(directory, data_set, features, make_label, counts, *, encode):
  """Prepares a data set, as ArrayRecord files.

  Args:
    directory: where TFDS looks for data sets.
    data_set: its name.
    features: those of an example, besides its image and a text.
    make_label: number of an example -> the values of these features.
    counts: number of examples by split. Those of the first are numbered from 0, those
      of the second from 100, and so on.
    encode: number -> bytes of an image.
  """
  builder = _builder_class(data_set, features, make_label, counts, encode)
  builder(data_dir=directory, file_format='array_record').download_and_prepare()


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
