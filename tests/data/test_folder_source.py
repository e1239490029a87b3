"""Folders of images."""

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


@pytest.mark.parametrize(
  ('layout', 'message'),
  [
    ([], r'holds no image \(.jpg, .jpeg, .png, .webp\)'),
    (['train/cat/', 'train/dog/'], 'holds no image'),
    (['train/cat/1.jpg', 'train/dog/'], "class 'dog' has no image in .*train"),
    (['train/cat/1.jpg', 'val/cow/2.jpg'], "class 'cow' has no image in .*train"),
    (['train/cat/1.jpg', 'train/2.jpg'], 'folders and images side by side'),
    (['cat/1.jpg', '2.jpg'], 'folders and images side by side'),
  ],
)
def test_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path, layout, message):
  for name in layout:
    path = tmp_path / name
    (path if name.endswith('/') else path.parent).mkdir(parents=True, exist_ok=True)
    if not name.endswith('/'):
      path.write_bytes(b'')
  with pytest.raises(ValueError, match=message) as error:
    _create(tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('path', ['', '/nowhere/at/all'])
def test_wrong_path_is_refused(path):
  with pytest.raises(ValueError, match=f"there is no folder '{path}'"):
    _create(path)
