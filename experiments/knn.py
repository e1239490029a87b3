"""Weighted kNN classification with the embeddings of a frozen encoder.

python -m experiments.knn --config=configs/knn/digits.py --workdir=DIR \
  --config.init_from=RUN
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from experiments import shared
from sslhsic import parallel, storage
from sslhsic.data import compared, sources
from sslhsic.evaluation import encoder as encoder_lib
from sslhsic.evaluation import knn
from sslhsic.runs import measurement


def measure(config: ml_collections.ConfigDict, path: storage.Path) -> dict[str, Any]:
  """Top-1 and top-5 for every k and temperature."""
  data, extra = config.data, shared.extra_tests(config)
  train_source, test_source, *extra_sources = compared.create(
    data.train, data.test, *extra.values(), allow_overlap=data.allow_overlap
  )
  # Before the images are embedded, which takes long.
  if max(config.protocol.k) > len(train_source):
    raise ValueError(
      f'config.protocol.k is {tuple(config.protocol.k)}, but {data.train.source} '
      f'{data.train.split} has {len(train_source)} images; use smaller k'
    )
  encoder = shared.frozen_encoder(config, train_source)
  shared.check_encoder(path, encoder.fingerprint, config.init_from)
  train, test = encoder.embed_share(train_source), encoder.embed_share(test_source)
  num_classes = sources.single_label_classes(train_source)
  top5 = min(5, num_classes)
  # Fewer neighbours are the first of these.
  nearest = knn.neighbours(
    train.features,
    train.labels,
    test.features,
    k=max(config.protocol.k),
    train_rows=train.rows,
  )
  num_images = len(parallel.of_hosts(train.rows))
  print(f'{encoder.description}: {num_images:,} training images\n')
  rows = _rows(config.protocol, nearest, test.labels, num_classes, top5)
  vote = functools.partial(
    knn.scores,
    train.features,
    train.labels,
    train_rows=train.rows,
    num_classes=num_classes,
    k=rows[0]['k'],
    temperature=rows[0]['temperature'],
  )
  found = dict(zip(extra, extra_sources, strict=True))
  results, protocol = _extra_results(config, found, encoder, vote)
  return results | {
    # The first k and temperature of the configuration give the headline numbers.
    'knn_top1': rows[0]['top1'],
    'knn_top5': rows[0]['top5'],
    'knn': rows,
    'encoder': encoder.description,
    'encoder_fingerprint': encoder.fingerprint,
    'images_per_second': encoder.num_images / encoder.seconds,
    'protocol': {
      **protocol,
      'knn_top1': f'cosine kNN on {data.train.source} {data.train.split}, weights '
      f'exp(similarity / T), k = {rows[0]["k"]}, T = {rows[0]["temperature"]:g}; '
      f'{shared.describe(config)}; one pass over {data.test.source} '
      f'{data.test.split}',
      'knn_top5': f'as knn_top1, of the {top5} classes with most votes, of those that '
      'have any',
    },
  }


def _rows(
  protocol: ml_collections.ConfigDict,
  nearest: knn.Neighbours,
  labels: np.ndarray,
  num_classes: int,
  top5: int,
) -> list[dict[str, Any]]:
  """The accuracies for each k and temperature, printed as they come."""
  rows = []
  print(f'{"k":>6}{"T":>8}{"top-1":>9}{f"top-{top5}":>9}')
  for k in protocol.k:
    for temperature in protocol.temperature:
      scores = knn.votes(nearest, num_classes=num_classes, k=k, temperature=temperature)
      row = {
        'k': k,
        'temperature': temperature,
        'top1': knn.top_k_accuracy(scores, labels),
        'top5': knn.top_k_accuracy(scores, labels, top5),
      }
      rows.append(row)
      print(f'{k:6}{temperature:8g}{row["top1"]:9.3f}{row["top5"]:9.3f}')
  return rows


def _extra_results(
  config: ml_collections.ConfigDict,
  found: Mapping[str, sources.Source],
  encoder: encoder_lib.FrozenEncoder,
  vote: Callable[[np.ndarray], np.ndarray],
) -> tuple[dict[str, float], dict[str, str]]:
  """Top-1 on the further test sets, and how it was measured.

  Args:
    config: the configuration.
    found: the test sets, by name.
    encoder: of their images.
    vote: gives the scores [m, C] of this host's embeddings [m, c].
  """
  results, protocol = {}, {}
  for name, source in found.items():
    part, classes = config.evaluation.extra_tests[name], shared.classes_there(source)
    share = encoder.embed_share(source)
    # A class without votes is not named.
    scores = np.where(classes, vote(share.features), 0)
    top1 = knn.top_k_accuracy(scores, share.labels)
    print(f'{name}: top-1 {top1:.3f}, among {classes.sum()} classes')
    results[f'knn_{name}_top1'] = top1
    protocol[f'knn_{name}_top1'] = (
      f'as knn_top1, on {part.source} {part.split}, votes for its {classes.sum()} '
      'classes alone'
    )
  return results, protocol


if __name__ == '__main__':
  measurement.main(measure, free=('init_from',))
