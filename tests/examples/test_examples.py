"""The examples learn, within seconds."""

import importlib

import jax
import numpy as np
import pytest

from examples import coloured_digits, digits, plain_jax
from sslhsic.data import images as images_lib
from sslhsic.data import sources

NUM_STEPS = 150  # Half of what the examples take by default.
RISE = 0.1  # Of the accuracy; over seeds 0 to 2 it is 0.14 or more.


@pytest.fixture(autouse=True)
def _default_promotion():
  """As for a reader: Optax and the frameworks promote types and ranks."""
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    yield


def _assert_learned(result):
  assert np.isfinite(result.losses).all()
  assert max(result.losses[-20:]) < result.losses[0] - 0.1
  assert result.knn_after > result.knn_before + RISE


@pytest.mark.parametrize('framework', ['flax', 'equinox'])
def test_framework_learns(framework):
  pytest.importorskip(framework)
  example = importlib.import_module(f'examples.with_{framework}')
  _assert_learned(example.main(NUM_STEPS))


def test_plain_jax_learns_alike_on_one_device_and_on_eight():
  one, *_ = devices = jax.devices()
  result = plain_jax.main(NUM_STEPS, devices=[one])
  _assert_learned(result)
  on_all = plain_jax.main(10, devices=devices)
  assert len(devices) == 8
  # What is rounded otherwise grows from step to step.
  np.testing.assert_allclose(on_all.losses, result.losses[:10], rtol=1e-4)
  assert on_all.knn_before == result.knn_before


def test_views_are_shifted_images_with_noise():
  images = digits.load()[0][:64]
  views = digits.two_views(jax.random.key(0), images)
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
  shifted = np.stack(
    [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
  )
  noise = np.asarray(views)[:, None] - shifted
  nearest = noise.std(axis=(-2, -1)).min(axis=1)
  np.testing.assert_allclose(nearest, 0.2, atol=0.1)
  assert np.abs(views[0] - views[1]).max() > 0.5


def test_coloured_digits_have_the_colour_of_their_class_in_training_only(tmp_path):
  coloured_digits.write(tmp_path / 'coloured')
  for split, least, most in (('train', 0.5, 0.6), ('test', 0.05, 0.15)):
    source = sources.create(f'folder:{tmp_path}/coloured?metadata=colours.csv', split)
    source = sources.with_metadata(source, 'colour')
    assert source.num_classes == 10
    assert least < np.mean(source.metadata == source.labels) < most
    for row in range(5):
      image = images_lib.decode(source[row]['image'])
      colour = coloured_digits.COLOURS[f'hue_{source.metadata[row]}']
      np.testing.assert_allclose(
        image, image.max(axis=2, keepdims=True) * colour, atol=1
      )
