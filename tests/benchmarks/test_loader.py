"""The loader's benchmark in a small form: late reads, and the parts of a batch."""

import pytest

from benchmarks import loader, loader_parts


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('jpegs')
  loader.write_jpegs(folder, 8, (24, 32))
  return loader.data_set(str(folder))


def test_a_worker_waits_for_many_late_reads_at_once(source):
  (row,) = loader_parts.late_reads(source, (16,), size=16, late_s=0.1, seconds=0.5)
  # One read in flight gives ten images per second.
  assert row['images_per_second'] > 40
  assert '16' in loader_parts.late_table([row])


def test_the_slowest_part_of_a_batch_is_named(source):
  measured = loader_parts.parts(
    loader_parts.Late(source, 0.002), batch_size=64, size=16, num_workers=0, rounds=1
  )
  assert measured['limited_by'] == 'read'
  assert measured['seconds']['read'] > 64 * 0.002
  assert measured['main_thread'] < measured['loader']
  assert loader_parts.parts_table(measured).endswith('read limits')
