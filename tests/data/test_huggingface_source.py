"""Small data sets of Hugging Face, as they are on disk."""

import pickle

import numpy as np
import pytest

from sslhsic.data import fingerprint, images, loader, sources

datasets = pytest.importorskip('datasets')

COUNTS = {'train': 12, 'test': 5}
NAMES = ['cat', 'dog', 'eel']


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
  cache = tmp_path_factory.mktemp('cache')
  monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', cache)


def _pixels(count, seed=0, side=(6, 4), channels=3):
  return np.random.default_rng(seed).integers(
    0, 256, (count, *side, channels), np.uint8
  )


def _data_set(features=None, columns=None, split='train'):
  """Images that the library encodes, and what else they have."""
  features = features or {'image': datasets.Image(), 'label': _class_label()}
  count = COUNTS[split]
  columns = columns or {'image': list(_pixels(count)), 'label': np.arange(count) % 3}
  return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _class_label():
  return datasets.ClassLabel(names=NAMES)


def _both():
  return datasets.DatasetDict({split: _data_set(split=split) for split in COUNTS})


def _saved(path):
  _both().save_to_disk(path)


def _parquet(path):
  (path / 'data').mkdir()
  for split, rows in _both().items():
    rows.to_parquet(path / 'data' / f'{split}-00000-of-00001.parquet')


@pytest.mark.parametrize('write', [_saved, _parquet])
def test_examples_are_those_of_the_data_set(tmp_path, write):
  write(tmp_path)
  for split, count in COUNTS.items():
    source = sources.create(f'huggingface:{tmp_path}', split)
    assert (len(source), source.num_classes, source.class_names) == (
      count,
      3,
      tuple(NAMES),
    )
    np.testing.assert_array_equal(source.labels, np.arange(count) % 3)
    assert source.labels.dtype == np.int32
    decoded = [images.decode(source[row]['image']) for row in range(count)]
    np.testing.assert_array_equal(decoded, _pixels(count))
    assert source[4]['label'] == 1
    assert source.name(4) == f'example 4 of huggingface:{tmp_path}, {split}'


def test_parts_and_unions(tmp_path):
  _saved(tmp_path)
  create = lambda split: sources.create(f'huggingface:{tmp_path}', split)
  part, both = create('train[75%:]'), create('test+train[:2]')
  np.testing.assert_array_equal(part.labels, [0, 1, 2])
  np.testing.assert_array_equal(both.labels, [0, 1, 2, 0, 1, 0, 1])
  assert np.bincount(create('train, balanced 6').labels).tolist() == [2, 2, 2]
  # Overlaps show by the origins: rows of different splits differ.
  assert not np.isin(part.origin.rows, both.origin.rows).any()
  assert np.isin(create('train[:2]').origin.rows, both.origin.rows).all()
  assert fingerprint.fingerprint(part) != fingerprint.fingerprint(both)


def test_loader_reads_it_in_workers(tmp_path):
  _saved(tmp_path)
  source = sources.create(f'huggingface:{tmp_path}', 'train')
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy.labels, source.labels)
  assert len(pickle.dumps(source)) < 20_000
  assert loader.image_shape(source, loader.whole_image) == (6, 4, 3)


def test_a_single_data_set_is_the_split_train(tmp_path):
  _data_set().save_to_disk(tmp_path)
  assert len(sources.create(f'huggingface:{tmp_path}', 'train[:5]')) == 5


def test_part_that_was_saved_alone_is_the_split_train(tmp_path):
  (tmp_path / 'parquet').mkdir()
  _parquet(tmp_path / 'parquet')
  part = datasets.load_dataset(str(tmp_path / 'parquet'), split='train[:50%]')
  part.save_to_disk(tmp_path / 'part')
  assert len(sources.create(f'huggingface:{tmp_path}/part', 'train')) == 6
  assert len(sources.create(f'huggingface:{tmp_path}/part', 'train[:2]')) == 2


def test_features_may_have_other_names(tmp_path):
  features = {
    'img': datasets.Image(),
    'fine_label': _class_label(),
    'coarse_label': datasets.ClassLabel(names=['a', 'b']),
  }
  columns = {
    'img': list(_pixels(12)),
    'fine_label': np.arange(12) % 3,
    'coarse_label': np.arange(12) % 2,
  }
  _data_set(features, columns).save_to_disk(tmp_path)
  source = sources.create(f'huggingface:{tmp_path}', 'train')
  assert source.num_classes == 0
  assert 'several, fine_label, coarse_label; name one' in source.description
  source = sources.create(f'huggingface:{tmp_path}?label=coarse_label', 'train')
  np.testing.assert_array_equal(source.labels, np.arange(12) % 2)
  with pytest.raises(ValueError, match="no feature 'x' for its label; use one of img"):
    sources.create(f'huggingface:{tmp_path}?label=x', 'train')


def test_labels_may_be_whole_numbers_or_missing(tmp_path):
  features = {'image': datasets.Image(), 'label': datasets.Value('int64')}
  columns = {'image': list(_pixels(4)), 'label': [300, -1, 7, None]}
  _data_set(features, columns).save_to_disk(tmp_path)
  source = sources.create(f'huggingface:{tmp_path}', 'train')
  assert (source.num_classes, source.class_names) == (301, ())
  np.testing.assert_array_equal(source.labels, [300, -1, 7, -1])
  assert [source[row]['label'] for row in range(4)] == [300, -1, 7, -1]


@pytest.mark.parametrize('nothing', [-1, None])
def test_split_without_any_label_is_unlabelled(tmp_path, nothing):
  """As the test split of a competition: with classes, whose numbers are hidden."""
  hidden = {'image': list(_pixels(5)), 'label': [nothing] * 5}
  data_set = {'train': _data_set(), 'test': _data_set(columns=hidden, split='test')}
  datasets.DatasetDict(data_set).save_to_disk(tmp_path)
  create = lambda split: sources.create(f'huggingface:{tmp_path}', split)
  assert (create('test').num_classes, create('test').class_names) == (0, ())
  np.testing.assert_array_equal(create('test').labels, [-1] * 5)
  assert create('train').num_classes == create('test+train').num_classes == 3


def test_classes_are_matched_by_name_where_splits_number_them_apart(tmp_path):
  """As `DatasetDict.class_encode_column` does, split by split."""
  words = {'train': ['eel', 'cat', 'dog', 'cat'], 'test': ['eel', 'dog', None]}
  features = {'image': datasets.Image(), 'label': datasets.Value('string')}
  data_set = {
    split: _data_set(features, {'image': list(_pixels(len(x))), 'label': x})
    for split, x in words.items()
  }
  data_set['test'] = data_set['test'].cast_column(
    'label', datasets.ClassLabel(names=['dog', 'eel'])
  )
  data_set['train'] = data_set['train'].class_encode_column('label')
  datasets.DatasetDict(data_set).save_to_disk(tmp_path)
  create = lambda split: sources.create(f'huggingface:{tmp_path}', split)
  for split in ('train', 'test'):
    assert create(split).class_names == ('cat', 'dog', 'eel')
  np.testing.assert_array_equal(create('train').labels, [2, 0, 1, 0])
  np.testing.assert_array_equal(create('test').labels, [2, 1, -1])
  np.testing.assert_array_equal(create('test+train').labels, [2, 1, -1, 2, 0, 1, 0])
  assert create('test')[0]['label'] == 2


@pytest.mark.parametrize('label', [_class_label(), datasets.Value('int64')])
def test_split_may_lack_the_label(tmp_path, label):
  features = {'image': datasets.Image(), 'label': label}
  hidden = {'image': list(_pixels(5))}
  test = _data_set({'image': datasets.Image()}, hidden, 'test')
  data_set = {'train': _data_set(features), 'test': test}
  datasets.DatasetDict(data_set).save_to_disk(tmp_path)
  create = lambda split: sources.create(f'huggingface:{tmp_path}', split)
  assert (create('train').num_classes, create('test').num_classes) == (3, 0)
  assert (
    "no labels, since the split 'test' has no feature" in create('test').description
  )
  np.testing.assert_array_equal(create('test+train[:2]').labels, [-1] * 5 + [0, 1])


def test_splits_of_different_images_are_joined_by_none(tmp_path):
  bands = {'image': datasets.Array3D((6, 4, 3), 'uint8'), 'label': _class_label()}
  data_set = {'train': _data_set(), 'test': _data_set(bands, split='test')}
  datasets.DatasetDict(data_set).save_to_disk(tmp_path)
  assert len(sources.create(f'huggingface:{tmp_path}', 'test')) == 5
  with pytest.raises(ValueError, match='splits train, test cannot be joined') as error:
    sources.create(f'huggingface:{tmp_path}', 'train+test')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('number', 'label', 'message'),
  [
    (2**40, datasets.Value('int64'), f"feature 'label' has the number {2**40} of a"),
    (-100, datasets.Value('int64'), 'its label is -100; use -1 where there is none'),
  ],
)
def test_numbers_that_no_class_can_have(tmp_path, number, label, message):
  features = {'image': datasets.Image(), 'label': label}
  columns = {'image': list(_pixels(2)), 'label': [1, number]}
  _data_set(features, columns).save_to_disk(tmp_path)
  with pytest.raises(ValueError, match=message):
    _ = sources.create(f'huggingface:{tmp_path}', 'train').labels


def test_splits_of_several_years_are_apart(tmp_path):
  counts = {'train2014': 3, 'train2017': 4, 'val2017': 2, 'test': 1}
  rows = lambda count: _data_set(
    columns={'image': list(_pixels(count)), 'label': [1] * count}
  )
  datasets.DatasetDict({name: rows(n) for name, n in counts.items()}).save_to_disk(
    tmp_path
  )
  create = lambda split: sources.create(f'huggingface:{tmp_path}', split)
  found = {name: len(create(name)) for name in counts}
  assert found == counts
  assert len(create('validation')) == len(create('val')) == 2
  with pytest.raises(ValueError, match=r"no split 'train'; it has train2014 \(3"):
    create('train')
  with pytest.raises(ValueError, match="no split 'val2014'"):
    create('val2014')


@pytest.mark.parametrize(
  ('label', 'values'),
  [
    (datasets.Value('string'), ['cat', 'dog']),
    (datasets.Array2D((2, 2), 'int32'), np.zeros((2, 2, 2), np.int32)),
  ],
)
def test_labels_that_are_no_numbers_are_none(tmp_path, label, values):
  features = {'image': datasets.Image(), 'label': label}
  columns = {'image': list(_pixels(2)), 'label': values}
  _data_set(features, columns).save_to_disk(tmp_path)
  source = sources.create(f'huggingface:{tmp_path}', 'train')
  assert (source.num_classes, source[0]['label']) == (0, -1)
  assert 'class_encode_column' in source.description


def test_arrays_have_any_number_of_channels(tmp_path):
  pixels = _pixels(3, channels=13)
  features = {'bands': datasets.Array3D((6, 4, 13), 'uint8'), 'label': _class_label()}
  _data_set(features, {'bands': pixels, 'label': [2, 0, 1]}).save_to_disk(tmp_path)
  source = sources.create(f'huggingface:{tmp_path}', 'train')
  np.testing.assert_array_equal([source[row]['image'] for row in range(3)], pixels)
  assert source[0]['image'].dtype == np.uint8
  np.testing.assert_array_equal(source.labels, [2, 0, 1])


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('nothing', "there is no folder '.*nothing'; use huggingface:PATH"),
    ('empty', 'neither a dataset_dict.json or state.json nor Parquet'),
    ('damaged', 'huggingface:.*damaged is no data set that can be read'),
    ('text', r'are none, of label; name one: huggingface:\S+text\?image=FEATURE'),
    ('text?colour=red', "unknown option 'colour=red'.*'image=FEATURE'"),
  ],
)
def test_errors_say_what_to_do(tmp_path, path, message):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'damaged').mkdir()
  (tmp_path / 'damaged' / 'train.parquet').write_bytes(b'PAR1')
  datasets.Dataset.from_dict({'label': [1]}).save_to_disk(tmp_path / 'text')
  with pytest.raises(ValueError, match=message):
    sources.create(f'huggingface:{tmp_path}/{path}', 'train')
