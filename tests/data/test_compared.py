"""Sources to train on and to test on, compared."""

import json
import logging
import os
import shutil
import types

import numpy as np
import pytest

from sslhsic.data import compared, sources


def _part(source, split):
  return types.SimpleNamespace(source=str(source), split=split)


def _names(source, of_first):
  """The classes of all examples, by the names of the first source."""
  return [of_first.class_names[label] for label in source.labels]


@pytest.fixture
def folders(tmp_path, write_images):
  """A function of classes and the number of the first image: the name of a folder."""

  def make(*classes, first=0):
    root = tmp_path / f'{first}'
    for number, name in enumerate(classes):
      write_images(root / name, 6, first=first + 10 * number, suffix='.png')
    return f'folder:{root}'

  return make


def test_classes_are_numbered_by_their_names(folders, capsys):
  train = _part(folders('bird', 'cat', 'dog'), 'train')
  test = _part(folders('dog', 'cat', first=100), 'train')
  alone = sources.create(test.source, 'train')
  first, second = compared.create(train, test)
  assert _names(second, first) == [alone.class_names[x] for x in alone.labels]
  assert (second.num_classes, second[0]['label']) == (3, second.labels[0])
  assert second[0]['image'] == alone[0]['image']
  assert (
    f'{test.source} train are numbered as in {train.source}' in capsys.readouterr().out
  )


def test_same_classes_change_nothing(folders):
  parts = [_part(folders('cat', 'dog', first=first), 'train') for first in (0, 100)]
  _, second = compared.create(*parts)
  assert second.class_names == ('cat', 'dog')
  _, digits = compared.create(_part('digits', 'train'), _part('digits', 'test'))
  assert len(digits) == 360


@pytest.mark.parametrize(
  ('classes', 'message'),
  [
    (('cat', 'Dog'), r'1 of 2 classes that .* has not: Dog; it has cat, dog'),
    (('cat', 'dog', 'cow'), 'classes that .* has not: cow'),
    ((), 'has no labels, which are needed here'),
  ],
)
def test_other_classes_raise_an_error(
  folders, classes, message, tmp_path, write_images
):
  train = folders('cat', 'dog')
  write_images(tmp_path / 'flat', 4, first=200)
  test = folders(*classes, first=100) if classes else f'folder:{tmp_path / "flat"}'
  with pytest.raises(ValueError, match=message):
    compared.create(_part(train, 'train'), _part(test, 'train'))


def test_number_of_classes_is_compared_where_there_are_no_names(folders):
  with pytest.raises(ValueError, match=r'has 10 classes, but .* has 2'):
    compared.create(_part(folders('cat', 'dog'), 'train'), _part('digits', 'test'))


def test_classes_without_images_are_warned_of(tmp_path, write_images, caplog):
  for number, folder in enumerate(('train/a', 'train/b', 'test/a', 'test/c')):
    write_images(tmp_path / folder, 5, first=10 * number)
  source = f'folder:{tmp_path}'
  with caplog.at_level(logging.WARNING):
    compared.create(_part(source, 'train'), _part(source, 'test'))
  assert f'{source} test has no image of 1 of the classes: b; scores' in caplog.text
  assert f'{source} train has no image of 1 of the classes: c; these' in caplog.text


@pytest.fixture
def partly_labelled(monkeypatch):
  """A data set of 6 images, of which numbers 1 and 4 have no label."""
  images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
  labels = np.array([0, -1, 1, 1, -1, 0], np.int32)
  create = lambda argument, split: sources.ArraySource(images, labels, num_classes=2)
  monkeypatch.setitem(sources.SOURCES, 'partly', create)
  return _part('partly:', 'train')


def test_images_without_a_label_are_left_out(partly_labelled, caplog):
  train, test = compared.create(
    partly_labelled, _part('partly:', 'train, random 100%'), allow_overlap=True
  )
  assert '2 of the 6 images of partly: train have no label' in caplog.text
  assert 'partly: train, random 100% have no label' in caplog.text
  assert [int(train[row]['image'].item()) for row in range(len(train))] == [0, 2, 3, 5]
  assert sorted(test.labels) == [0, 0, 1, 1]
  whole, _ = compared.create(
    partly_labelled, partly_labelled, allow_overlap=True, need_labels=False
  )
  assert len(whole) == 6


def test_labels_that_nobody_needs_are_not_compared():
  parts = _part('shapes', 'train[:5]'), _part('digits', 'test[:5]')
  _, digits = compared.create(*parts, need_labels=False)
  assert digits.num_classes == 10


def test_splits_without_a_class_in_common_raise_an_error(tmp_path, write_images):
  for number, folder in enumerate(('train/a', 'train/b', 'test/c', 'test/d')):
    write_images(tmp_path / folder, 5, first=10 * number)
  parts = [_part(f'folder:{tmp_path}', split) for split in ('train', 'test')]
  with pytest.raises(ValueError, match='has no image of any class that'):
    compared.create(*parts)


@pytest.mark.parametrize(
  ('source', 'train', 'test', 'shared'),
  [
    ('digits', 'train', 'train[90%:]', '144 of the 144 images'),
    ('digits', 'train[:1000]', 'train[999:]+test', '1 of the 798 images'),
    ('digits', 'train, balanced 100', 'train[:200]', '8 of the 200 images'),
    ('shapes', 'train[:20]', 'train[10:30]', '10 of the 20 images'),
  ],
)
def test_shared_images_raise_an_error(source, train, test, shared):
  parts = _part(source, train), _part(source, test)
  with pytest.raises(ValueError, match=f'{shared} of .* are also in .*allow_overlap'):
    compared.create(*parts)
  sizes = [len(source) for source in compared.create(*parts, allow_overlap=True)]
  assert sizes == [len(sources.create(part.source, part.split)) for part in parts]


def test_all_pairs_are_compared():
  parts = [_part('digits', x) for x in ('train[:500]', 'train[500:]', 'train[900:]')]
  with pytest.raises(
    ValueError, match=r'train\[900:\] are also in digits train\[500:\]'
  ):
    compared.create(*parts)


@pytest.mark.usefixtures('tfds_data')
def test_shared_images_of_tfds_raise_an_error():
  compared.create(_part('tfds:toy', 'train[:20]'), _part('tfds:toy', 'train[20:]'))
  with pytest.raises(ValueError, match='1 of the 11 images'):
    compared.create(_part('tfds:toy', 'train[:20]'), _part('tfds:toy', 'train[19:]'))


def test_part_of_a_folder_overlaps_with_the_whole(folders):
  source = folders('cat', 'dog')
  with pytest.raises(ValueError, match='6 of the 6 images'):
    compared.create(_part(source, 'train'), _part(source, 'train[50%:]'))


def test_folder_is_the_same_however_its_path_is_written(folders, tmp_path, monkeypatch):
  source = folders('cat', 'dog')
  (tmp_path / 'link').symlink_to(tmp_path / '0')
  monkeypatch.chdir(tmp_path)
  for path in ('0', './0/', '../{0}/0', 'link'):
    other = f'folder:{path.format(tmp_path.name)}'
    with pytest.raises(ValueError, match=r'12 of the 12 images .* are also in'):
      compared.create(_part(source, 'train'), _part(other, 'train'))


def test_data_set_of_tfds_is_the_same_however_its_path_is_written(
  tfds_data, monkeypatch
):
  monkeypatch.chdir(tfds_data)
  with pytest.raises(ValueError, match=r'30 of the 30 images .* are also in'):
    compared.create(
      _part('tfds:toy', 'train'), _part('tfds:./toy/1.0.0', 'train'), need_labels=False
    )


@pytest.mark.parametrize('how', ['copy', 'link'])
def test_copies_are_found_by_their_content(folders, tmp_path, how):
  train = folders('cat', 'dog')
  for number in range(3):
    path = tmp_path / 'copies' / 'cat' / f'other{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    original = tmp_path / '0' / 'dog' / f'{10 + number}.png'
    if how == 'copy':
      path.write_bytes(original.read_bytes())
    else:
      os.symlink(original, path)
  test = _part(f'folder:{tmp_path / "copies"}?classes=folders', 'train')
  with pytest.raises(ValueError, match=r'3 of the 3 images .* have the same content'):
    compared.create(_part(train, 'train'), test)


def test_copies_are_found_in_subsets_of_subsets(folders, tmp_path):
  part = _part(f'{folders("cat", "dog")}', 'train')
  whole = sources.create(part.source, 'train')
  subset = sources.SubsetSource(whole, np.arange(4, 12))
  nested = sources.SubsetSource(subset, np.arange(2, 8))
  shutil.copytree(tmp_path / '0', tmp_path / 'copy')
  copy = sources.create(f'folder:{tmp_path / "copy"}', 'train')
  assert compared._num_copies(nested, copy) == (6, 12)


def test_copies_are_found_among_files_that_begin_alike(tmp_path):
  rng = np.random.default_rng(0)
  for number in range(20):
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    image[:32] = 0
    for folder in ('first', 'copy'):
      file = tmp_path / folder / 'ab'[number % 2] / f'{number}.npy'
      file.parent.mkdir(parents=True, exist_ok=True)
      np.save(file, image)
  parts = [
    _part(f'folder:{tmp_path}/{name}?images=npy', 'train') for name in ('first', 'copy')
  ]
  with pytest.raises(ValueError, match=r'20 of the 20 images .* have the same content'):
    compared.create(*parts)


def _coco_file(path, names):
  """An annotation file of one image with an object of every class."""
  path.parent.mkdir(parents=True, exist_ok=True)
  entries = [
    {'id': number, 'image_id': 1, 'category_id': number, 'bbox': [number, 0, 5, 5]}
    for number in names
  ]
  image = {'id': 1, 'file_name': '1.png', 'height': 24, 'width': 40}
  categories = [{'id': number, 'name': name} for number, name in names.items()]
  content = {'images': [image], 'annotations': entries, 'categories': categories}
  path.write_text(json.dumps(content))


def test_classes_of_objects_are_numbered_by_their_names(tmp_path, write_images):
  _coco_file(
    tmp_path / 'annotations' / 'instances_train2017.json', {1: 'cat', 2: 'dog'}
  )
  _coco_file(tmp_path / 'annotations' / 'instances_val2017.json', {1: 'dog', 2: 'cat'})
  for folder in ('train2017', 'val2017'):
    write_images(tmp_path / folder, 2, suffix='.png')
  parts = [_part(f'coco:{tmp_path}', split) for split in ('train', 'val')]
  train, test = compared.create(*parts, need_labels=False)
  assert sources.annotations(test, 'boxes').object_classes == ('cat', 'dog')
  # The boxes lie at the ids of their categories.
  for source, expected in ((train, [0, 1]), (test, [1, 0])):
    order = np.argsort(source[0]['boxes'][:, 0])
    np.testing.assert_array_equal(source[0]['classes'][order], expected)


def test_pre_training_says_what_is_held_out(folders, capsys):
  data = types.SimpleNamespace(
    source=folders('cat', 'dog'), train_split='train[:75%]', allow_overlap=False
  )
  splits = lambda train, test: types.SimpleNamespace(train_split=train, test_split=test)
  compared.for_pretraining(data, splits('train[:75%]', 'train[75%:]'))
  out = capsys.readouterr().out
  assert '2 classes (cat, dog)' in out
  assert 'train[75%:]: 3 images, none of which is trained on' in out
  # A test image that the online classifier has learnt, or that features are fitted to.
  for train_split, fitted in (('train', 'train[:75%]'), ('train[:75%]', 'train')):
    data.train_split = train_split
    with pytest.raises(ValueError, match='3 of the 3 images'):
      compared.for_pretraining(data, splits(fitted, 'train[75%:]'))
  data.source += '?classes=none'
  compared.for_pretraining(data, splits('train', 'train[75%:]'))
  assert '3 images, none' in capsys.readouterr().out


def test_copies_of_trained_images_are_told_without_labels(
  tmp_path, write_images, capsys
):
  write_images(tmp_path / 'train', 6, suffix='.png')
  shutil.copytree(tmp_path / 'train', tmp_path / 'copy')
  data = types.SimpleNamespace(
    source=f'folder:{tmp_path}?train=train&copy=copy',
    train_split='train',
    allow_overlap=False,
  )
  splits = types.SimpleNamespace(train_split='train', test_split='copy')
  compared.for_pretraining(data, splits)
  assert 'copy: 6 images, 6 of the 6 looked at have the same' in capsys.readouterr().out
