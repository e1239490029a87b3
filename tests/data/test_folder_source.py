"""Folders of images."""

import os

import numpy as np
import pytest

from sslhsic.data import images, sources


def _create(path, split='train'):
  return sources.create(f'folder:{path}', split)


def _numbers(source):
  """The numbers that `encoded_image` has put into the blue channel."""
  decoded = [images.decode(source[i]['image']) for i in range(len(source))]
  return [round(image[..., 2].mean()) for image in decoded]


@pytest.fixture(scope='module')
def classes(tmp_path_factory, write_images):
  """Splits 'train' and 'val' with classes 'cat' and 'dog', and one without any."""
  root = tmp_path_factory.mktemp('classes')
  write_images(root / 'train' / 'dog', 20, first=0, suffix='.png')
  write_images(root / 'train' / 'cat' / 'deeper', 10, first=50, suffix='.PNG')
  write_images(root / 'val' / 'dog', 3, first=100, suffix='.webp')
  write_images(root / 'val' / 'cat', 2, first=110, suffix='.jpeg')
  write_images(root / 'more', 4, first=200)
  (root / 'train' / 'notes.txt').write_text('not an image')
  (root / 'train' / '.hidden').mkdir()
  return root


def test_images_have_the_numbers_of_their_folders(classes):
  train = _create(classes)
  assert (len(train), train.num_classes) == (30, 2)
  numbers = _numbers(train)
  assert sorted(numbers) == [*range(20), *range(50, 60)]
  np.testing.assert_array_equal(train.labels, [number < 50 for number in numbers])
  assert train[0]['label'].dtype == np.int32


@pytest.mark.parametrize('name', ['val', 'validation'])
def test_validation_split_has_two_names(classes, name):
  source = _create(classes, name)
  np.testing.assert_allclose(
    sorted(_numbers(source)), [100, 101, 102, 110, 111], atol=5
  )  # JPEG and WebP are not exact.


def test_parts_divide_a_split_at_random(classes):
  first, second = _create(classes, 'train[:15]'), _create(classes, 'train[15:]')
  assert sorted(_numbers(first) + _numbers(second)) == [*range(20), *range(50, 60)]
  assert {0, 1} == set(first.labels) == set(second.labels)
  both = _create(classes, 'train[:15]+val')
  assert len(both) == 20


def test_order_is_the_same_wherever_the_folder_lies(classes, tmp_path):
  (tmp_path / 'elsewhere').symlink_to(classes)
  assert _numbers(_create(classes)) == _numbers(_create(tmp_path / 'elsewhere'))


def test_subset_of_a_folder(classes):
  source = _create(classes, 'train, balanced 20%')
  np.testing.assert_array_equal(np.bincount(source.labels), [3, 3])
  assert source[0]['label'] == source.labels[0]
  assert source.name(0).startswith(str(classes / 'train'))


def test_folder_without_classes_is_unlabelled(classes):
  source = _create(classes, 'more')
  assert (len(source), source.num_classes, source[0]['label']) == (4, 0, -1)
  flat = _create(classes / 'more')
  assert len(flat) == 4
  assert len(_create(classes / 'more', 'train[50%:]')) == 2


def test_folder_of_classes_is_one_split(classes):
  assert len(_create(classes / 'val')) == 5
  with pytest.raises(ValueError, match=r"has no split 'test'; it has train \(5 exam"):
    _create(classes / 'val', 'test')


def _make(root, layout):
  """Writes files and folders (names that end in '/'); a '*' stands for four images."""
  for name in layout.split():
    for number in range(4 if '*' in name else 1):
      path = root / name.replace('*', f'{number}.jpg')
      (path if name.endswith('/') else path.parent).mkdir(parents=True, exist_ok=True)
      if not name.endswith('/'):
        path.write_bytes(name.encode())


def _found(root, split, options=''):
  """The class, or '' without labels, of the paths of a split."""
  source = _create(f'{root}{options}', split)
  names = (*source.class_names, '')
  return {
    path.removeprefix(f'{root}/'): names[label]
    for path, label in zip(source.paths, source.labels, strict=True)
  }


def _four(classes):
  """Four images in each of these folders, with the classes that are given."""
  return {
    f'{folder}/{number}.jpg': name
    for folder, name in classes.items()
    for number in range(4)
  }


CAT_DOG = {'cat': 'cat', 'dog': 'dog'}
AMONG_OTHERS = 'car/* bus/* train/* tram/*'


@pytest.mark.parametrize(
  ('layout', 'split', 'expected'),
  [
    (
      'Train/cat/* Train/dog/* Test/cat/*',
      'train',
      {'Train/cat': 'cat', 'Train/dog': 'dog'},
    ),
    ('Train/a/* Train/b/* Test/a/*', 'test', {'Test/a': 'a'}),
    ('TRAINING/* valid/*', 'training', {'TRAINING': ''}),
    ('TRAINING/* valid/*', 'validation', {'valid': ''}),
    ('train2017/* val2017/*', 'val', {'val2017': ''}),
    (AMONG_OTHERS, 'train', {x: x for x in ('car', 'bus', 'train', 'tram')}),
    # A folder that holds everything.
    ('images/*', 'train', {'images': ''}),
    ('a/b/cat/* a/b/dog/*', 'train', {'a/b/cat': 'cat', 'a/b/dog': 'dog'}),
    ('images/train/* images/val/* labels/train/0.txt', 'val', {'images/val': ''}),
    (
      'train/train/cat/* train/train/dog/*',
      'train',
      {'train/train/cat': 'cat', 'train/train/dog': 'dog'},
    ),
    ('train/a/images/* train/b/images/* val/images/*', 'val', {'val/images': ''}),
    ('train/a/* train/b/* test/test/*', 'test', {'test/test': ''}),
    # One class of several.
    ('train/a/* train/b/* val/b/*', 'val', {'val/b': 'b'}),
    ('train/a/* train/b/* val/a/* val/b/', 'val', {'val/a': 'a'}),
    ('train/b/* val/a/* val/b/*', 'train', {'train/b': 'b'}),
    ('train/A/* train/a/* val/a/* val/A/*', 'val', {'val/a': 'a', 'val/A': 'A'}),
    # What is no image, and what is not ours.
    (
      'cat/* dog/* docs/a.txt __MACOSX/cat/._0.jpg .x/1.jpg @eaDir/1.jpg',
      'train',
      CAT_DOG,
    ),
    ('cat/* cat/x.jpg.part cat/noext dog/*', 'train', CAT_DOG),
    # A folder with the suffix of an image.
    ('v1.jpg/* dog/*', 'train', {'v1.jpg': 'v1.jpg', 'dog': 'dog'}),
    ('train/a/* val/a/* train/b/* val/b/* more/*', 'more', {'more': ''}),
  ],
)
def test_layouts_are_understood(tmp_path, layout, split, expected):
  _make(tmp_path, layout)
  assert _found(tmp_path, split) == _four(expected)


@pytest.mark.parametrize(
  ('layout', 'options', 'split', 'expected'),
  [
    ('val/* x/*', 'splits=none', 'train', {'val': 'val', 'x': 'x'}),
    (
      'train/a/* train/b/* x/*',
      'train=train',
      'train',
      {'train/a': 'a', 'train/b': 'b'},
    ),
    ('val/* x/*', 'train=x&valid=val', 'validation', {'val': ''}),
    ('train/* Training/*', 'train=Training', 'train', {'Training': ''}),
    ('cat/* dog/*', 'classes=none', 'train', {'cat': '', 'dog': ''}),
    ('cat/*', 'classes=folders', 'train', {'cat': 'cat'}),
    ('a_train/* a_test/*', 'train=a_train&test=a_test', 'test', {'a_test': ''}),
  ],
)
def test_options_decide(tmp_path, layout, options, split, expected):
  _make(tmp_path, layout)
  assert _found(tmp_path, split, f'?{options}') == _four(expected)


@pytest.mark.parametrize(
  ('layout', 'message'),
  [
    ('', r'holds no image; images are JPEG'),
    ('a.heic b.txt', r'holds no image, only 1 \.heic, 1 \.txt'),
    ('train/cat/ train/dog/', 'holds no image'),
    (
      'train/cat/* train/dog/',
      "class 'dog' has no image in .*train', its folder is empty",
    ),
    ('cat/* cow/* dog/1.HEIC', "class 'dog' has no image in .*only 1 .heic"),
    ('train/cat/* train/dog/* train/2.jpg', "side by side.*'.classes=none'"),
    ('cat/* 2.jpg', 'side by side'),
    ('train/cat/* 2.jpg', r"1 images next to folders .*\(train\).*train=train'"),
    (
      'train/* Train/*',
      r"2 folders for the split 'train': Train, train; .*train=Train'",
    ),
    ('val/* valid/*', "2 folders for the split 'validation'"),
    (
      'val/* x/*',
      r'like splits \(val\) among others \(x\).*splits=none.*validation=val',
    ),
    ('a/val/* a/x/*', r'validation=a/val'),
    ('cat/* dog/* cow/* test/*', 'splits=none'),
    ('seg_train/a/* seg_train/b/* seg_test/a/*', 'seg_train.*test=seg_test'),
    ('one/train/* one/test/* two/x/*', r"one' holds folders .*folder:.*one'"),
    ('train/Cat/* train/b/* val/cat/* val/b/*', "differently: 'Cat', 'cat'"),
    ('train/a\u0308/* train/b/* val/\xe4/* val/b/*', "differently: 'a.u0308', '.xe4'"),
    ('train/a/* train/b/* car/* bus/* tram/*', 'splits=none'),
  ],
)
def test_layout_that_is_not_clear_raises_one_line(tmp_path, layout, message):
  _make(tmp_path, layout)
  with pytest.raises(ValueError, match=message) as error:
    _create(tmp_path)
  assert '\n' not in str(error.value)


def test_split_that_is_named_twice_raises_an_error(tmp_path):
  with pytest.raises(ValueError, match="name the split 'train' twice; give it one"):
    _create(f'{tmp_path}?train=A&train=B')


def test_splits_of_several_years_are_apart(tmp_path, write_images):
  root = tmp_path / 'root'
  for first, (folder, count) in enumerate((('a', 3), ('b', 4), ('c', 2))):
    write_images(root / folder, count, first=10 * first)
  source = f'{root}?train2014=a&train2017=b&val2017=c'
  found = [len(_create(source, x)) for x in ('train2014', 'train2017', 'val')]
  assert found == [3, 4, 2]
  for split in ('train', 'val2014'):
    with pytest.raises(ValueError, match=f"no split '{split}'; it has train2014"):
      _create(source, split)
  # The same as folders, of which one split has one.
  (root / 'a').rename(tmp_path / 'elsewhere')
  (root / 'b').rename(root / 'train2017')
  (root / 'c').rename(root / 'val2017')
  found = [len(_create(root, x)) for x in ('train', 'train2017', 'validation')]
  assert found == [4, 4, 2]
  with pytest.raises(ValueError, match="no split 'train2014'"):
    _create(root, 'train2014')


@pytest.mark.parametrize('options', ['split=none', 'splits=all', 'classes=', 'a b=c'])
def test_unknown_options_raise_an_error(tmp_path, options):
  _make(tmp_path, '*')
  with pytest.raises(ValueError, match=r"unknown option .* use 'splits=none'"):
    _create(f'{tmp_path}?{options}')


def test_folder_may_have_a_question_mark_in_its_name(tmp_path):
  _make(tmp_path, 'why?/cat/* why?/dog/*')
  assert len(_create(tmp_path / 'why?')) == 8
  assert _create(f'{tmp_path}/why??classes=none').num_classes == 0


def test_description_counts_everything(tmp_path):
  _make(tmp_path, 'train/a/* train/b/* val/* train/a/x.heic notes.txt more.txt')
  description = _create(tmp_path).description
  assert description == (
    f'folder:{tmp_path}: train 8 images, validation 4 images without labels; 2 classes '
    '(a, b)\n  left out: 2 .txt, 1 .heic'
  )


def test_links_and_loops_are_followed_once(tmp_path):
  _make(tmp_path, 'real/cat/* root/dog/* root/cow/*')
  root = tmp_path / 'root'
  (root / 'cat').symlink_to('../real/cat')
  (root / 'again').symlink_to('dog')
  (root / 'dog' / 'up').symlink_to('..')
  (root / 'dog' / 'itself').symlink_to('itself')
  (root / 'broken.jpg').symlink_to('nowhere')
  found = _found(root, 'train')
  assert found == _four({x: x for x in ('cat', 'cow', 'dog')})
  assert '2 link to a folder listed already' in _create(root).description


def test_names_may_be_any_bytes(tmp_path, encoded_image):
  names = [b'caf\xe9.jpg', b'a\nb.jpg', b'\x1b[31m.jpg', ' ü日.jpg'.encode()]
  for number, name in enumerate(names):
    with open(os.path.join(os.fsencode(tmp_path), name), 'wb') as file:
      file.write(encoded_image(number))
  source = _create(tmp_path)
  assert sorted(_numbers(source)) == [0, 1, 2, 3]
  assert all(source.name(row).isprintable() for row in range(4))


def test_special_files_are_not_opened(tmp_path):
  _make(tmp_path, '*')
  os.mkfifo(tmp_path / 'pipe.jpg')
  assert len(_create(tmp_path)) == 4


def test_folder_is_listed_once_until_it_changes(tmp_path, monkeypatch):
  _make(tmp_path, 'train/a/* train/b/* val/a/* val/b/*')
  for folder, _, _ in os.walk(tmp_path):
    os.utime(folder, (1e9, 1e9))  # Long ago.
  listed = []
  scandir = os.scandir
  monkeypatch.setattr(os, 'scandir', lambda path: listed.append(path) or scandir(path))
  assert len(_create(tmp_path)) == len(_create(tmp_path, 'val')) == 8
  assert len(listed) == 7
  (tmp_path / 'val' / 'b' / 'new.jpg').write_bytes(b'')
  assert len(_create(tmp_path, 'val')) == 9


@pytest.mark.parametrize('path', ['', '/nowhere/at/all'])
def test_wrong_path_is_refused(path):
  with pytest.raises(ValueError, match=f"there is no folder '{path}'"):
    _create(path)


def test_arrays_are_images_if_the_options_say_so(tmp_path, write_images):
  write_images(tmp_path / 'a', 2)
  for name in 'ab':
    (tmp_path / name).mkdir(exist_ok=True)
    np.save(tmp_path / name / 'image.npy', np.full((5, 4, 13), ord(name), np.uint8))
  source = _create(f'{tmp_path}?images=npy')
  assert (len(source), source.class_names) == (2, ('a', 'b'))
  found = {int(source[i]['label']): images.decode(source[i]['image']) for i in range(2)}
  assert (found[0] == ord('a')).all()
  assert found[1].shape == (5, 4, 13)
  assert len(_create(tmp_path)) == 2  # Else they are files like any other.
  (tmp_path / 'a' / 'image.npy').unlink()
  with pytest.raises(ValueError, match=r'no image, only 2 \.jpg; images are NPY files'):
    _create(f'{tmp_path}/a?images=npy')
