"""What the examples share: scikit-learn's digits, random views of them, and a score."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets, model_selection

from sslhsic.evaluation import knn


class Result(NamedTuple):
  """What an example returns.

  Attributes:
    losses: one a step.
    knn_before: `knn_accuracy` of the untrained network's embeddings.
    knn_after: that of the trained one's.
  """

  losses: list[float]
  knn_before: float
  knn_after: float

  def __str__(self) -> str:
    return (
      f'loss: {self.losses[0]:.3f} at the start, {self.losses[-1]:.3f} at the end\n'
      f'kNN accuracy: {self.knn_before:.3f} before, {self.knn_after:.3f} after'
    )


@functools.cache
def load() -> list[np.ndarray]:
  """Images to train on and to test on, float32 [n, 8, 8] from −1 to 1; their labels."""
  bunch = datasets.load_digits()
  images = np.float32(bunch.images / 8 - 1)
  return model_selection.train_test_split(
    images, bunch.target, test_size=360, stratify=bunch.target, random_state=0
  )


def batches(num_steps: int, seed: int, batch_size: int = 128) -> Iterator[np.ndarray]:
  """Images to train on, [batch_size, 8, 8], without their labels."""
  images, rng = load()[0], np.random.default_rng(seed)
  for _ in range(num_steps):
    yield images[rng.choice(len(images), batch_size, replace=False)]


@jax.jit
def two_views(rng: jax.Array, images: jax.Array) -> jax.Array:
  """Each image as seen twice at random: [b, 8, 8] -> [2, b, 8, 8]."""
  keys = jax.random.split(rng, (2, len(images)))
  return jax.vmap(jax.vmap(_view), in_axes=(0, None))(keys, images)


def _view(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Shifts an image [8, 8] by up to a pixel each way, and adds noise."""
  shift_rng, noise_rng = jax.random.split(rng)
  corner = jax.random.randint(shift_rng, [2], 0, 3)
  padded = jnp.pad(image, 1, constant_values=-1)
  shifted = jax.lax.dynamic_slice(padded, corner, image.shape)
  return shifted + 0.2 * jax.random.normal(noise_rng, image.shape)


def knn_accuracy(embed: Callable[[np.ndarray], jax.Array]) -> float:
  """How often a view of a test image is near training images of its class.

  The views are always the same. By their pixels half of them are, and 97 % of the
  images as they are: what there is to learn is that shifts and noise do not matter.

  Args:
    embed: images [n, 8, 8] -> embeddings [n, d].
  """
  train_images, test_images, train_labels, test_labels = load()
  test_views = two_views(jax.random.key(0), test_images)[0]
  scores = knn.scores(
    embed(train_images), train_labels, embed(test_views), num_classes=10
  )
  return float(np.mean(scores.argmax(axis=1) == test_labels))
