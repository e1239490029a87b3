"""Tables and configurations by their names."""

import pytest

from sslhsic.tables import catalogue

CATALOGUE = catalogue.Catalogue('configs')


def test_tables_and_configurations_are_found():
  assert {'kernel', 'linear', 'depth'} < set(CATALOGUE.names())
  assert not {'bases', 'tuned'} & set(CATALOGUE.names())
  table = CATALOGUE.table('kernel', 'digits')
  assert (table.name, table.base) == ('kernel', 'digits')
  assert CATALOGUE.config('pretrain/digits').data.source == 'digits'


def test_unknown_tables_and_bases_are_refused():
  with pytest.raises(
    ValueError, match="unknown table 'kernels'; use one of batch_size"
  ):
    CATALOGUE.table('kernels', 'digits')
  with pytest.raises(ValueError, match="no base 'digits'; use one of shapes, imagenet"):
    CATALOGUE.table('depth', 'digits')
