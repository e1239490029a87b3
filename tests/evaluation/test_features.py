"""Features of whole sources, and what they are worth."""

import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import parallel
from sslhsic.data import loader, sources
from sslhsic.evaluation import features, representations
from sslhsic.plots import embeddings


def _source(count):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
  return sources.ArraySource(images, np.arange(count, dtype=np.int32), count)


@pytest.mark.parametrize('count', [5, 16, 21])
def test_every_image_is_seen_once_in_order(count):
  source = _source(count)
  forward = parallel.pmap(
    lambda batch: {'sum': jnp.sum(batch['image'].astype(jnp.float32), axis=(1, 2, 3))}
  )
  outputs, labels = features.extract(forward, loader.one_pass(source, batch_size=16))
  np.testing.assert_array_equal(labels, np.arange(count))
  expected = source.images.sum(axis=(1, 2, 3), dtype=np.float32)
  np.testing.assert_array_equal(outputs['sum'], expected)
  # The share of the only host is everything.
  share = features.share(forward, loader.one_pass(source, batch_size=16))
  np.testing.assert_array_equal(share.features['sum'], expected)
  np.testing.assert_array_equal(share.labels, labels)
  np.testing.assert_array_equal(share.rows, np.arange(count))


def test_examples_without_a_label_are_left_out(caplog):
  labels = np.array([0, -1, 2], np.int32)
  found = features.Share({'x': np.arange(6).reshape(3, 2)}, labels, np.arange(3))
  found = features.labelled(found, labels)
  assert found.features['x'].tolist() == [[0, 1], [4, 5]]
  assert (found.labels.tolist(), found.rows.tolist()) == ([0, 2], [0, 2])
  assert '1 of 3 images have no label' in caplog.text
  # One of several labels that is not to be judged is another thing.
  assert len(features.labelled(labels, np.array([[1, -1]] * 3))) == 3


def test_next_batch_is_computed_while_one_is_fetched():
  events = []

  def forward(batch):
    events.append('launched')
    return batch['label']

  def fetch(tree):
    events.append('fetched')
    return parallel.gather(tree)

  batches = loader.one_pass(_source(40), batch_size=16)
  found = list(features.outputs(forward, batches, fetch))
  assert events == ['launched', 'launched', 'fetched', 'launched', *['fetched'] * 2]
  np.testing.assert_array_equal(np.concatenate(found), np.arange(40))


def test_outputs_that_are_not_finite_are_named():
  source = _source(7)
  forward = parallel.pmap(
    lambda batch: 1 / (batch['label'] - 3).astype(jnp.float32)[:, None]
  )
  for function in (features.extract, features.share):
    with pytest.raises(ValueError, match=r'1 of 7 outputs .* the first for row 3'):
      function(forward, loader.one_pass(source, batch_size=8))


@pytest.fixture(scope='module')
def digits():
  return [
    representations.pixels(
      loader.one_pass(sources.create('digits', split), batch_size=480)
    )
    for split in ('train', 'test')
  ]


def test_pixels_are_the_images(digits):
  train, _ = digits
  assert train.features.shape == (1437, 64)
  assert train.features.max() == 1.0
  assert train.features.dtype == np.float32


def test_comparison_measures_every_representation(digits):
  train, test = digits
  noise = np.random.default_rng(0).normal(size=(1797, 64)).astype(np.float32)
  compared = {
    'noise': (
      train._replace(features=noise[:1437]),
      test._replace(features=noise[1437:]),
    ),
    'pixels': (train, test),
  }
  protocol = representations.Protocol(labels_per_class=(2, 10))
  result = representations.compare(compared, num_classes=10, protocol=protocol)
  of_pixels = result['representations']['pixels']
  assert of_pixels['knn_top1'] > 0.95
  assert result['linear_top1'] == of_pixels['linear_top1'] > 0.95
  few_labels = result['few_label_top1']
  assert 0.6 < few_labels['pixels'][2] < few_labels['pixels'][10] < 0.95
  assert few_labels['noise'][10] < 0.2
  assert result['representations']['noise']['linear_top1'] < 0.2
  lines = representations.table(result).splitlines()
  assert [line.split()[0] for line in lines[1:]] == ['noise', 'pixels']
  assert lines[2].split()[1] == f'{of_pixels["knn_top1"]:.3f}'
  assert max(map(len, lines)) <= 80


def test_comparison_is_said_in_words():
  measured = {
    'pixels': {'knn_top1': 0.975, 'linear_top1': 0.9639},
    'untrained': {'knn_top1': 0.8, 'linear_top1': 0.9},
    'trained': {'knn_top1': 0.9944, 'linear_top1': 1.0},
  }
  assert representations.sentence({'representations': measured}, 'train[9:]') == (
    'top-1 on train[9:]: kNN 99.4 % (pixels 97.5 %), linear 100.0 % (pixels 96.4 %)'
  )


def test_map_is_drawn(digits, tmp_path):
  _, test = digits
  few = {'pixels': test.features[:40], 'again': test.features[:40]}
  embeddings.embedding_maps(few, test.labels[:40], tmp_path / 'maps.png')
  assert (tmp_path / 'maps.png').read_bytes()[:4] == b'\x89PNG'
