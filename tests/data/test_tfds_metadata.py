"""Damaged and unusual metadata of prepared data sets."""

import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sslhsic.data import loader, sources
from sslhsic.data.errors import DecodeError
from tests import tfds_data_sets

CLASS = tfds.features.ClassLabel(num_classes=4)


@pytest.fixture
def version(prepared, tmp_path, monkeypatch):
  """The directory of a copy of a prepared data set that may be changed."""
  directory = tmp_path / 'toy' / '1.0.0'
  shutil.copytree(prepared / 'toy' / '1.0.0', directory)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  return directory


@pytest.mark.parametrize('nested', [False, True])
def test_module_that_the_data_name_is_not_imported(
  version, nested, monkeypatch, tmp_path
):
  (tmp_path / 'planted.py').write_text('')
  monkeypatch.syspath_prepend(tmp_path)
  features = {'pythonClassName': 'planted.Feature'}
  if nested:
    content = json.dumps({'features': {'image': features}})
    name = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'
    proto = 'tensorflow_datasets.FeaturesDict'
    features = {'type': name, 'proto_cls': proto, 'content': content}
  (version / 'features.json').write_text(json.dumps(features))
  for source in ('tfds:toy', f'tfds:{version}'):
    with pytest.raises(ValueError, match=r"names the class 'planted.Feature', which"):
      sources.create(source, 'train')
  assert 'planted' not in sys.modules


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('dataset_info.json', '{"name": "to', 'cannot be read: ParseError'),
    ('dataset_info.json', None, 'cannot be read|holds no prepared data set'),
    ('features.json', '{"featuresDict"', 'cannot be read: JSONDecodeError'),
    ('features.json', '{}', 'cannot be read'),
    ('toy-train.array_record-00000-of-00001', '', 'cannot be read from'),
    ('toy-train.array_record-00000-of-00001', None, 'cannot be read from'),
  ],
)
def test_damaged_files_raise_one_line(version, file, content, message):
  if content is None:
    (version / file).unlink()
  else:
    (version / file).write_text(content)
  for source in ('tfds:toy', f'tfds:{version}'):
    with pytest.raises(ValueError, match=message) as error:
      sources.create(source, 'train')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'name', ['', './toy', '~/toy', 'toy@x', 'kaggle:x', 'file:///toy']
)
def test_names_that_are_none_raise_one_line(version, name):
  with pytest.raises(ValueError, match=f'tfds:{name} ') as error:
    sources.create(f'tfds:{name}', 'train')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('feature', 'label', 'expected'),
  [
    ({'labels': CLASS}, lambda number: {'labels': number % 4}, [0, 1, 2, 3]),
    (
      {'label': tfds.features.Sequence(CLASS)},
      lambda number: {'label': [number % 4] * (number > 0)},
      [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    ),
    ({'label': tfds.features.Text()}, lambda number: {'label': 'x'}, [-1] * 4),
    (
      {'labels': tfds.features.Tensor(shape=(2,), dtype=np.int64)},
      lambda number: {'labels': [0, 1]},
      [-1] * 4,
    ),
  ],
)
def test_labels_of_any_kind_of_feature(
  tmp_path, encoded_image, monkeypatch, feature, label, expected
):
  arguments = tmp_path, 'odd', feature, label, {'train': 4}
  tfds_data_sets.prepare(*arguments, encode=encoded_image)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  source = sources.create('tfds:odd', 'train')
  assert sorted(source.labels.tolist()) == sorted(expected)
  if source.num_classes == 0:
    assert 'odd: no labels, since the feature' in source.description


def test_classes_that_there_are_not_are_bad(version):
  features = json.loads((version / 'features.json').read_text())
  label = features['featuresDict']['features']['label']
  label['classLabel']['numClasses'] = '3'
  (version / 'features.json').write_text(json.dumps(features))
  source = sources.create('tfds:toy', 'train')
  one_pass = loader.one_pass(
    source, batch_size=len(source), crop=loader.centre_crop(8), max_bad_fraction=0.4
  )
  (batch,) = one_pass
  assert sorted(batch['label'][batch['mask']]) == [0] * 6 + [1] * 6 + [2] * 6
  with pytest.raises(DecodeError, match=r'label is [34]; classes are 0 to 2'):
    _ = source.labels
