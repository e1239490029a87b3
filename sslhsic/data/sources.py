"""Data sets by name, as random-access sequences of examples.

An example is `{'image': …, 'label': …}`: an image, encoded (the bytes of a JPEG, PNG or
WebP) or uint8 [H, W, C], and its class, int32; -1 if it has none. If it may be of
several classes, the label is [C] of 1 (it is), 0 (it is not), -1 (not to be judged).
A source with the attribute `annotations` has more in its examples, such as the boxes of
objects: see `Annotations`. Other attributes that a source may have: `class_names` by
their number, `origin` (see `origins`), `description`, which programs print, and the
methods `with_metadata` and `path` (see the function and `path_or_name`).

Adding a data set is one entry in `SOURCES`: a function (argument, split) -> source,
where the argument is what follows the colon of a name such as 'tfds:imagenet2012', and
the split names parts in TFDS's syntax.
"""

import os

from sslhsic.data import (
  coco_source,
  digits_source,
  folder_source,
  huggingface_source,
  idx_source,
  shapes_source,
  splits,
  tfds_source,
  voc_source,
)
from sslhsic.data.source import (
  ArraySource,
  ConcatenatedSource,
  RelabelledSource,
  Source,
  SubsetSource,
  annotations,
  of_whole,
  origins,
  path_or_name,
  single_label_classes,
  with_metadata,
)

__all__ = [
  'SOURCES',
  'ArraySource',
  'ConcatenatedSource',
  'RelabelledSource',
  'Source',
  'SubsetSource',
  'annotations',
  'create',
  'of_whole',
  'origins',
  'path_or_name',
  'single_label_classes',
  'with_metadata',
]

SOURCES = {
  'digits': digits_source.create,
  'tfds': tfds_source.create,
  'folder': folder_source.create,
  'idx': idx_source.create,
  'huggingface': huggingface_source.create,
  'shapes': shapes_source.create,
  'voc': voc_source.create,
  'coco': coco_source.create,
}


def create(name: str, split: str) -> Source:
  """The examples of a split of a data set.

  Args:
    name: 'digits', 'shapes', 'tfds:NAME', 'folder:PATH' (or 'folder:PATH?OPTIONS'),
      'idx:PATH', 'huggingface:PATH', 'voc:PATH' or 'coco:PATH'; see `tfds_source` and
      the others.
    split: parts and, after a comma, which subset of them: 'train[:-10009]',
      'train+validation', 'train, balanced 1%, seed 0' (see `splits`).

  Raises:
    ValueError: there is no such source, it is not there, or it has no such split.
  """
  kind, _, argument = name.partition(':')
  if kind not in SOURCES:
    guess = f'; did you mean {f"folder:{name}"!r}?' if os.path.isdir(name) else ''
    raise ValueError(
      f'unknown data source {name!r}; use one of {", ".join(SOURCES)}{guess}'
    )
  parts, subset = splits.parse(split)
  source = SOURCES[kind](argument, parts)
  if subset is None:
    return source
  return SubsetSource(source, splits.draw(subset, source))
