"""What a split means: parts and subsets."""

import numpy as np
import pytest

from sslhsic.data import sources, splits

SIZES = {'train': 100, 'validation': 7}


@pytest.mark.parametrize(
  ('parts', 'expected'),
  [
    ('train', [('train', slice(None, None))]),
    ('train[:-10]', [('train', slice(None, 90))]),
    ('train[-10:]', [('train', slice(90, None))]),
    ('train[5%:30%]', [('train', slice(5, 30))]),
    (
      'train[:50%]+validation',
      [('train', slice(None, 50)), ('validation', slice(None, None))],
    ),
  ],
)
def test_parts_are_those_of_tfds(parts, expected):
  assert splits.ranges(parts, SIZES, 'it') == expected


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    ('test', r"it has no split 'test'; it has train \(100 examples\), validation \(7"),
    ('train[:x]', r"it has no split 'train\[:x\]'"),
    ('train[:200]', r"it has no split 'train\[:200\]'; it has train \(100 examples\)"),
    ('', "it has no split ''"),
    ('train[:0]+validation[:0]', 'of it holds no example; take a larger part'),
  ],
)
def test_parts_that_are_not_there_are_refused_in_one_line(parts, message):
  with pytest.raises(ValueError, match=message) as error:
    splits.ranges(parts, SIZES, 'it')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('split', 'expected'),
  [
    ('train[:-10]', ('train[:-10]', None)),
    ('train, balanced 1%', ('train', splits.Subset('balanced', '1%', 0))),
    ('train, random 500, seed 3', ('train', splits.Subset('random', '500', 3))),
    ('a+b[:5%], random 0.5%', ('a+b[:5%]', splits.Subset('random', '0.5%', 0))),
  ],
)
def test_subset_follows_a_comma(split, expected):
  assert splits.parse(split) == expected


@pytest.mark.parametrize(
  'split', ['train, 1%', 'train,', 'train, balanced', 'a, seed 1']
)
def test_what_is_no_subset_is_refused(split):
  with pytest.raises(ValueError, match="write it as 'train, balanced 1%, seed 0'"):
    splits.parse(split)


def _source(num_classes=4):
  rng = np.random.default_rng(0)
  labels = rng.permutation(np.repeat(np.arange(4), [40, 30, 20, 10]))
  images = np.zeros([100, 1, 1, 1], np.uint8)
  return sources.ArraySource(images, labels.astype(np.int32), num_classes)


def test_balanced_subset_has_equally_many_of_each_class():
  source = _source()
  rows = splits.draw(splits.Subset('balanced', '20%'), source)
  np.testing.assert_array_equal(np.bincount(source.labels[rows]), [5, 5, 5, 5])
  assert np.all(np.diff(rows) > 0)


def test_random_subset_follows_the_classes():
  source = _source()
  rows = np.concatenate(
    [splits.draw(splits.Subset('random', '20%', seed), source) for seed in range(50)]
  )
  share = np.bincount(source.labels[rows]) / len(rows)
  np.testing.assert_allclose(share, [0.4, 0.3, 0.2, 0.1], atol=0.05)


@pytest.mark.parametrize('kind', ['random', 'balanced'])
def test_subset_depends_on_the_seed_and_grows_with_the_size(kind):
  few, more, other = (
    set(splits.draw(splits.Subset(kind, size, seed), _source()))
    for size, seed in [('8', 0), ('20%', 0), ('8', 1)]
  )
  assert len(few) == 8
  assert few < more
  assert few != other


@pytest.mark.parametrize('kind', ['random', 'balanced'])
def test_all_but_a_subset_is_the_rest(kind):
  drawn, rest = (
    splits.draw(splits.parse(f'train, {but}{kind} 20%, seed 3')[1], _source())
    for but in ('', 'all but ')
  )
  np.testing.assert_array_equal(np.sort(np.concatenate([drawn, rest])), np.arange(100))
  assert len(drawn) == 20


@pytest.mark.parametrize(
  ('subset', 'num_classes', 'message'),
  [
    (
      splits.Subset('balanced', '100'),
      4,
      'class 2 has 20 in this split; ask for fewer',
    ),
    (splits.Subset('balanced', '4'), 5, 'but class 4 has 0 in this split'),
    (splits.Subset('balanced', '4'), 0, "needs one label per example; use 'random 4'"),
    (splits.Subset('balanced', '101'), 4, 'is 101; ask for 1 to 100'),
    (splits.Subset('balanced', '0.1%'), 4, 'is 0; ask for 1 to 100'),
    (splits.Subset('random', '100', is_rest=True), 4, 'of 100 examples leaves none'),
  ],
)
def test_subset_that_cannot_be_drawn_is_refused(subset, num_classes, message):
  with pytest.raises(ValueError, match=message):
    splits.draw(subset, _source(num_classes))


@pytest.mark.parametrize(
  ('parts', 'expected'),
  [
    ('Train[:10%]+VAL', 'train[:10%]+validation'),
    ('Training+valid+dev+Testing', 'train+validation+validation+test'),
    ('train2017+val_set[1:]', 'train+validation[1:]'),
    ('images_train', 'train'),
    ('trainval+train_aug+trained+latest', 'trainval+train_aug+trained+latest'),
  ],
)
def test_variants_of_a_name_are_the_same_split(parts, expected):
  assert splits.canonical(parts) == expected


def test_splits_that_would_share_a_name_keep_theirs():
  names = splits.called(['train', 'dev', 'val2014', 'test_2019', 'extra'])
  assert names == {
    'train': 'train',
    'dev': 'dev',
    'val2014': 'val2014',
    'test_2019': 'test',
    'extra': 'extra',
  }
  known = splits.canonical('Training+dev+val2014[1:]+test_2019+testing', names)
  assert known == 'train+dev+val2014[1:]+test+test'
  # Another year is another split, and which of two is meant is not known.
  unknown = splits.canonical('test_2021+train2017+valid', names)
  assert unknown == 'test_2021+train2017+validation'
