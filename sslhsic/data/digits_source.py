"""Scikit-learn's handwritten digits, which come with the package."""

import numpy as np

from sslhsic.data import splits
from sslhsic.data.origins import Origin
from sslhsic.data.source import ArraySource


def create(argument: str, split: str) -> ArraySource:
  """Scikit-learn's handwritten digits, [8, 8, 1]: 1,437 to train on, 360 to test.

  The split is stratified and always the same.
  """
  # Worker processes read their source's module, and scikit-learn takes long to import.
  from sklearn import datasets, model_selection

  if argument:
    raise ValueError(f"source 'digits:{argument}' is unknown; use 'digits'")
  bunch = datasets.load_digits()
  train, test = model_selection.train_test_split(
    np.arange(len(bunch.target)), test_size=360, stratify=bunch.target, random_state=0
  )
  rows_of = {'train': train, 'test': test}
  sizes = {name: len(rows) for name, rows in rows_of.items()}
  parts = splits.ranges(split, sizes, 'digits')
  rows = np.concatenate([rows_of[name][part] for name, part in parts])
  # Floats from 0 to 16, [n, 8, 8]; the last axis is the channel.
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = bunch.target[rows].astype(np.int32)
  return ArraySource(images[rows], labels, 10, Origin('digits', rows))
