"""Data sets by name."""

import numpy as np
import pytest
from sklearn import datasets

from sslhsic.data import sources
from sslhsic.data.annotations import Annotations


def test_digits_are_scikit_learns_each_in_one_split():
  train, test = (sources.create('digits', split) for split in ('train', 'test'))
  assert (len(train), len(test), train.num_classes) == (1437, 360, 10)
  images = np.concatenate([train.images, test.images]).reshape(-1, 64)
  original = datasets.load_digits().data
  recovered = np.round(images * (16 / 255))
  order = lambda x: x[np.lexsort(x.T)]
  np.testing.assert_array_equal(order(recovered), order(original))


def test_digits_split_is_stratified():
  train, test = (sources.create('digits', split) for split in ('train', 'test'))
  share = np.bincount(test.labels) / np.bincount(
    np.concatenate([train.labels, test.labels])
  )
  np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_example_is_an_image_and_its_label():
  example = sources.create('digits', 'train')[3]
  assert example['image'].shape == (8, 8, 1)
  assert example['image'].dtype == np.uint8
  assert example['label'].dtype == np.int32


def test_parts_and_subsets_of_digits():
  whole = sources.create('digits', 'train')
  part = sources.create('digits', 'train[100:200]')
  np.testing.assert_array_equal(part.images, whole.images[100:200])
  few = sources.create('digits', 'train, balanced 100, seed 1')
  np.testing.assert_array_equal(np.bincount(few.labels), [10] * 10)
  assert (len(few), few.num_classes) == (100, 10)
  np.testing.assert_array_equal(few[7]['image'], whole[int(few.rows[7])]['image'])
  assert few.name(7) == f'example {few.rows[7]}'
  assert len(sources.create('digits', 'train+test')) == 1797


def test_wrong_arrays_are_refused():
  with pytest.raises(ValueError, match=r'pass uint8 \[n, H, W, C\] and int32 \[n\]'):
    sources.ArraySource(np.zeros((2, 8, 8, 1)), np.zeros(2, np.int32), 1)


@pytest.mark.parametrize(
  ('name', 'split', 'message'),
  [
    ('digit', 'train', "unknown data source 'digit'; use one of digits"),
    ('digits', 'val', r"no split 'val'; it has train \(1,437 examples\), test \(360"),
    ('digits:8', 'train', "'digits:8' is unknown; use 'digits'"),
  ],
)
def test_unknown_names_are_refused_in_one_line(name, split, message):
  with pytest.raises(ValueError, match=message):
    sources.create(name, split)


def test_concatenated_source_has_the_examples_of_both():
  whole = sources.create('digits', 'train[:9]')
  parts = (sources.create('digits', split) for split in ('train[:4]', 'train[4:9]'))
  joined = sources.ConcatenatedSource(*parts)
  assert (len(joined), joined.num_classes) == (9, 10)
  np.testing.assert_array_equal(joined.labels, whole.labels)
  for row in range(9):
    np.testing.assert_array_equal(joined[row]['image'], whole[row]['image'])
    assert joined.name(row) == f'example {row if row < 4 else row - 4}'


class _Dense(sources.ArraySource):
  annotations = Annotations(
    frozenset({'segmentation', 'depth'}), segmentation_classes=('background', 'disc')
  )


def test_annotations_are_those_of_the_whole_source():
  digits = sources.create('digits', 'train[:4]')
  dense = _Dense(digits.images, digits.labels, 10)
  subset = sources.SubsetSource(dense, np.array([2, 3]))
  both = sources.ConcatenatedSource(subset, dense)
  for source in (dense, subset, both):
    assert sources.annotations(source, 'depth') == dense.annotations
  mixed = sources.ConcatenatedSource(dense, digits)
  for source, kind, there in (
    (digits, 'depth', 'an image only'),
    (mixed, 'depth', 'an image only'),
    (subset, 'boxes', 'depth, segmentation'),
  ):
    with pytest.raises(ValueError, match=f'has {there}, but {kind} is needed; use'):
      sources.annotations(source, kind)
