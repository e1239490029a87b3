"""Metadata of images: of folders from a CSV file, of TFDS from features."""

import numpy as np
import pytest

from sslhsic.data import images, loader, sources

COLOURS = ('red', 'green', 'blue')


@pytest.fixture(scope='module')
def folder(tmp_path_factory, write_images):
  """Images numbered from 0, in two splits, and metadata made of their numbers."""
  root = tmp_path_factory.mktemp('folder')
  write_images(root / 'train' / 'a', 5)
  write_images(root / 'train' / 'b', 4, first=5)
  write_images(root / 'val' / 'a', 3, first=9)
  lines = ['colour,file,age,year']
  for number in range(12):
    split = 'train' if number < 9 else 'val'
    kind = 'b' if 5 <= number < 9 else 'a'
    colour = COLOURS[number % 3] if number < 9 else 'black'
    lines.append(
      f'{colour},{split}/{kind}/{number}.jpg,{number / 2},{2000 + number % 2}'
    )
  # As Excel writes it.
  (root / 'data.csv').write_text('\r\n'.join(lines), encoding='utf-8-sig')
  return root


def _number(name):
  return int(name.rpartition('/')[2].split('.')[0])


def _values(name, split, field):
  source = sources.with_metadata(sources.create(name, split), field)
  return np.array([source[i]['metadata'] for i in range(len(source))]), source


@pytest.mark.parametrize('split', ['train', 'val', 'val+train', 'train, balanced 50%'])
def test_words_and_whole_numbers_are_categories_and_others_quantities(folder, split):
  name = f'folder:{folder}?metadata=data.csv'
  colours, source = _values(name, split, 'colour')
  numbers = np.array([_number(source.name(i)) for i in range(len(source))])
  # black, blue, green, red: numbered over all splits.
  expected = np.where(numbers < 9, np.array([3, 2, 1])[numbers % 3], 0)
  np.testing.assert_array_equal(colours, expected)
  assert colours.dtype == np.int32
  years, _ = _values(name, split, 'year')
  np.testing.assert_array_equal(years, numbers % 2)
  ages, _ = _values(name, split, 'age')
  np.testing.assert_array_equal(ages, np.float32(numbers[:, None] / 2))
  assert ages.dtype == np.float32


def test_batches_have_the_metadata_of_their_images_only_if_asked(folder):
  source = sources.create(f'folder:{folder}?metadata=data.csv', 'train')
  crop = loader.random_crop(8)
  make = lambda source: loader.views(source, batch_size=6, seed=0, crops=[crop] * 2)
  assert 'metadata' not in next(make(source))
  with_age = sources.with_metadata(source, 'age')
  stream = make(with_age)
  for step in range(3):
    batch, names = next(stream), stream.describe(step)['name']
    numbers = [_number(name) for name in names]
    np.testing.assert_array_equal(batch['metadata'][:, 0], np.float32(numbers) / 2)
  stream.close()


def test_features_of_tfds(tfds_data):
  del tfds_data
  of = lambda field: _values('tfds:toy_plain', 'train[:10]+validation', field)
  sites, source = of('site')
  numbers = [
    int(images.decode(source[i]['image'])[0, 0, 2]) for i in range(len(source))
  ]
  np.testing.assert_array_equal(sites, np.array(numbers) % 3)
  assert sites.dtype == np.int32
  places, _ = of('place')
  np.testing.assert_array_equal(places, np.float32([[x, 0.5] for x in numbers]))
  with pytest.raises(ValueError, match=r"no feature 'other' .* use one of place, site"):
    of('other')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('path,colour\n', "has the columns path, colour; use different names, and 'file'"),
    ('file,colour,colour\n', 'use different names'),
    ('', 'has the columns none'),
    ('file,size\na.jpg,3\n', "no column 'colour'; use one of size"),
    ('file,colour\nb.jpg,red\n', 'has no colour of a.jpg; add it'),
    ('file,colour\na.jpg,\n', 'has no colour of a.jpg; add it'),
    ('file,colour\na.jpg,red,1\n', 'row 1 has more values than the 2 columns'),
    ('file,colour\n./a.jpg,red\na.jpg,red\n', 'two rows for a.jpg'),
    ('file,colour\na.jpg,1.5\nb.jpg,nan\n', 'colour of b.jpg is nan; give a finite'),
    ('file,colour\na.jpg,1e40\n', 'colour of a.jpg is 1e40; give a finite'),
  ],
)
def test_table_with_a_mistake(tmp_path, write_images, text, message):
  write_images(tmp_path, 1)
  (tmp_path / '0.jpg').rename(tmp_path / 'a.jpg')
  (tmp_path / 'data.csv').write_text(text)
  source = sources.create(f'folder:{tmp_path}?metadata=data.csv', 'train')
  with pytest.raises(ValueError, match=message):
    sources.with_metadata(source, 'colour')


def test_sources_without_metadata(folder):
  for name in ('digits', f'folder:{folder}'):
    with pytest.raises(ValueError, match=r'has no metadata; use folder:.*FILE\.csv'):
      sources.with_metadata(sources.create(name, 'train'), 'colour')
  source = sources.create(f'folder:{folder}?metadata=nowhere.csv', 'train')
  with pytest.raises(ValueError, match=r'no file .*nowhere\.csv'):
    sources.with_metadata(source, 'colour')
