"""Paths of users."""

import pathlib

import pytest

from sslhsic.runs import paths


def test_tilde_is_the_home_directory(monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  assert paths.parse('~/runs', '--workdir') == pathlib.Path('/home/someone/runs')
  assert paths.parse('a/~b', '--workdir') == pathlib.Path('a/~b')
  with pytest.raises(ValueError, match="--workdir is '~nobody-of-this-name/runs'"):
    paths.parse('~nobody-of-this-name/runs', '--workdir')


@pytest.mark.parametrize('address', ['az://bucket/run', 'https://a', 'hdfs://a:1/b'])
def test_address_of_another_kind_is_an_error(address):
  with pytest.raises(ValueError, match=f"--workdir is '{address}', .* gs://… or s3://"):
    paths.parse(address, '--workdir')


def test_directory_of_an_output_is_made_at_once(tmp_path):
  file = paths.output_file(tmp_path / 'a' / 'b' / 'report.html', '--output')
  assert file.parent.is_dir()
  assert not file.exists()
  directory = paths.output_directory(tmp_path / 'c' / 'export', '--out')
  assert directory.parent.is_dir()
  assert not directory.exists()


def test_output_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match=r'--output: nothing can be written into .*/file'):
    paths.output_file(tmp_path / 'file' / 'report.html', '--output')
  with pytest.raises(ValueError, match=r'--output is .*, a directory; give a file'):
    paths.output_file(tmp_path, '--output')
  with pytest.raises(ValueError, match='not empty; use another --out'):
    paths.output_directory(tmp_path, '--out')
