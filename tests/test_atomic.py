"""Files that are there whole or not at all."""

from sslhsic import atomic


def test_two_who_write_a_file_at_once_do_not_share_it(tmp_path):
  path = tmp_path / 'file'
  with atomic.opened(path) as first:
    first.write(b'fir')
    with atomic.opened(path) as second:
      second.write(b'second')
    assert path.read_bytes() == b'second'
    first.write(b'st')
  assert path.read_bytes() == b'first'
  assert list(tmp_path.iterdir()) == [path]
