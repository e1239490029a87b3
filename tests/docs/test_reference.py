"""The reference of the configuration describes every field, and is up to date."""

import tomllib

import pytest

from configs.pretrain import imagenet
from docs import reference

MEANINGS = tomllib.loads(reference.MEANINGS.read_text(encoding='utf-8'))


def test_page_is_up_to_date():
  assert reference.PATH.read_text(encoding='utf-8') == reference.page(MEANINGS), (
    'run `make docs`, or `python -m docs.reference`'
  )


def _leaves(values, prefix=''):
  for name, value in values.items():
    if hasattr(value, 'items') and value:
      yield from _leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}'


def test_every_field_of_pretraining_has_a_row():
  page = reference.PATH.read_text(encoding='utf-8')
  fields = list(_leaves(imagenet.get_config().to_dict()))
  assert len(fields) > 100
  for field in fields:
    name = field.rpartition('.')[2]
    if field.startswith('runner.collapse.minima.'):
      continue  # A dict of the user's choice.
    # Settings of losses and the like have tables of their own; byol has no setting.
    rows = (f'| `{field}` |', f'| `{name}` |', f'### `{name}`\n')
    assert any(row in page for row in rows), field


def test_missing_and_superfluous_meanings_are_errors():
  without = {name: text for name, text in MEANINGS.items() if name != 'seed'}
  with pytest.raises(reference.MeaningError, match='lacks seed, and describes nothing'):
    reference.page(without)
  with pytest.raises(
    reference.MeaningError, match=r'describes data\.sed that no preset'
  ):
    reference.page({**MEANINGS, 'data.sed': 'A slip.'})
