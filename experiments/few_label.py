"""Accuracy by the number of labels per class, with a frozen encoder.

python -m experiments.few_label --config=configs/few_label/digits.py --workdir=DIR \
  --config.init_from=RUN
"""

from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from experiments import shared
from sslhsic import storage
from sslhsic.data import compared, sources
from sslhsic.evaluation import few_label
from sslhsic.plots import curves
from sslhsic.runs import measurement, parts, processes


def measure(config: ml_collections.ConfigDict, path: storage.Path) -> dict[str, Any]:
  """Top-1 of logistic regressions for every number of labels, and their curve."""
  data, protocol = config.data, config.protocol
  train_source, test_source = compared.create(
    data.train, data.test, allow_overlap=data.allow_overlap
  )
  # Before the images are embedded, which takes long.
  check_labels(train_source, protocol.labels_per_class)
  encoder = shared.frozen_encoder(config, train_source)
  shared.check_encoder(path, encoder.fingerprint, config.init_from)
  train, test = encoder.embed_share(train_source), encoder.embed_share(test_source)
  top1 = few_label.few_label_top1(
    train.features,
    train.labels,
    test.features,
    test.labels,
    num_classes=sources.single_label_classes(train_source),
    labels_per_class=protocol.labels_per_class,
    num_draws=protocol.num_draws,
    l2=protocol.l2,
    seed=config.seed,
    train_rows=train.rows,
  )
  print(f'{encoder.description}\n\n{"labels/class":>12}{"top-1":>9}')
  for count, accuracy in top1.items():
    print(f'{count:12}{accuracy:9.3f}')
  # A figure that fails does not cost the numbers.
  failed = {}
  with parts.part('few_label.png', failed):
    processes.first_does(lambda: _draw(top1, path / 'figures'))
  results = {'failed': failed} if failed else {}
  return results | {
    'few_label_top1': top1,
    'encoder': encoder.description,
    'encoder_fingerprint': encoder.fingerprint,
    'images_per_second': encoder.num_images / encoder.seconds,
    'protocol': {
      'few_label_top1': 'logistic regression on standardised embeddings, L2 penalty '
      f'{protocol.l2:g}, from n labels per class of {data.train.source} '
      f'{data.train.split}, mean over {protocol.num_draws} draws of labels; '
      f'{shared.describe(config)}; one pass over {data.test.source} {data.test.split}'
    },
  }


def check_labels(source: sources.Source, labels_per_class: Sequence[int]) -> None:
  """Checks that every class has as many images as labels are asked for.

  Raises:
    ValueError: one has not.
  """
  counts = np.bincount(
    source.labels[source.labels >= 0], minlength=sources.single_label_classes(source)
  )
  if counts.min() < max(labels_per_class):
    raise ValueError(
      f'config.protocol.labels_per_class is {tuple(labels_per_class)}, but class '
      f'{counts.argmin()} of config.data.train has {counts.min()} images; ask for fewer'
    )


def _draw(top1: dict[int, float], directory: storage.Path) -> None:
  storage.make_directory(directory)
  curves.few_label_curve(top1, directory / 'few_label.png')


if __name__ == '__main__':
  measurement.main(measure, free=('init_from',))
