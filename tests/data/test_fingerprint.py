"""Data sets are known again by the number and the names of their examples."""

import shutil

import pytest

from sslhsic.data import fingerprint, sources


def _folder(path, write_images):
  for name, first in (('cat', 0), ('dog', 5)):
    write_images(path / 'train' / name, 3, first=first)
  return path


def _of(path):
  return fingerprint.fingerprint(sources.create(f'folder:{path}', 'train'))


def test_data_set_that_has_moved_is_the_same(tmp_path, write_images, monkeypatch):
  found = _of(_folder(tmp_path / 'a', write_images))
  assert found.count == 6
  shutil.move(tmp_path / 'a', tmp_path / 'some' / 'where')
  monkeypatch.chdir(tmp_path)
  for path in (tmp_path / 'some' / 'where', 'some/where', './some/where'):
    fingerprint.check(found, _of(path), 'config.data.source')


def _add(path):
  shutil.copy(path / 'train' / 'cat' / '1.jpg', path / 'train' / 'cat' / '9.jpg')


def _rename(path):
  (path / 'train' / 'dog' / '6.jpg').rename(path / 'train' / 'dog' / '9.jpg')


def _sort_otherwise(path):
  (path / 'train' / 'dog' / '6.jpg').rename(path / 'train' / 'cat' / '6.jpg')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (_add, '6 images then, 7 now'),
    (_rename, '6 images as then, but other names'),
    (_sort_otherwise, '6 images as then, but other names'),
  ],
)
def test_data_set_that_has_changed_is_another_one(
  tmp_path, write_images, change, message
):
  found = _of(_folder(tmp_path, write_images))
  change(tmp_path)
  with pytest.raises(
    ValueError, match=f'of config.data.source has changed .*{message}'
  ):
    fingerprint.check(found, _of(tmp_path), 'config.data.source')


def test_number_of_examples_tells_sources_without_files_apart():
  of = lambda split: fingerprint.fingerprint(sources.create('digits', split))
  assert of('train') == of('train')
  assert of('train') != of('train[:100]')
