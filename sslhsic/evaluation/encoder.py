"""A frozen encoder, for the evaluations that do not train it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import augment, parallel
from sslhsic.data import loader, sources
from sslhsic.evaluation import features, pretrained, representations
from sslhsic.networks import classifier

Pass = Callable[[sources.Source], Iterator[loader.Batch]]


class FrozenEncoder:
  """An encoder in evaluation mode, on all devices.

  Args:
    encoder, encoder_options: the network, see `classifier.encoder`.
    init_from: where its values come from, see `pretrained.load`.
    seed: of random initial values.
    mean, std: normalisation of the images, one number a channel.
    source: if the values are random, the batch statistics are those of its first
      batch.
    image_shape: [H, W, C] of the images.
    one_pass: batches of a source, see `loader.one_pass`.

  Raises:
    ValueError: as `pretrained.load` and `networks.create`.

  Attributes:
    params, network_state: replicated over the devices.
    description: where the values come from.
    fingerprint: of the values.
    embedding_size: c.
    num_images, seconds: embedded so far, and how long it took.
  """

  def __init__(
    self,
    *,
    encoder: str,
    encoder_options: Mapping,
    init_from: str,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    source: sources.Source,
    image_shape: Sequence[int],
    one_pass: Pass,
  ):
    self._network = classifier.encoder(
      encoder=encoder, encoder_options=encoder_options, axis_name=parallel.AXIS_NAME
    )
    self.prepare = preparation(mean, std)
    self._one_pass = one_pass
    initial = initial_values(self._network, image_shape, seed)
    start = pretrained.load(init_from, *initial, mean=mean, std=std)
    images = jnp.zeros((1, *image_shape))
    embedding = jax.eval_shape(self.apply, start.params, start.network_state, images)
    self.embedding_size = embedding.shape[1]
    self.description, self.fingerprint = start.description, start.fingerprint
    self.params = parallel.replicate(start.params)
    self.network_state = parallel.replicate(start.network_state)
    if init_from == pretrained.RANDOM:
      self.network_state = calibrated(
        self._network,
        self.params,
        self.network_state,
        self.prepare,
        next(one_pass(source)),
      )
    self._embed = parallel.pmap(
      lambda params, state, images: self.apply(params, state, self.prepare(images))
    )
    self.num_images, self.seconds = 0, 0.0

  def apply(
    self, params: hk.Params, network_state: hk.State, images: chex.Array
  ) -> chex.Array:
    """Embeddings [n, c] of normalised images, inside a mapped function."""
    return self._network.apply(params, network_state, None, images, False)[0]

  def embed(self, source: sources.Source) -> representations.Split:
    """Embeddings and labels of every example of a source, on the host."""
    return self.embed_with_rows(source)[0]

  def embed_with_rows(
    self, source: sources.Source
  ) -> tuple[representations.Split, np.ndarray]:
    """As `embed`, and the rows of the source: corrupt images are left out."""
    start = time.perf_counter()

    def forward(batch):
      images = batch['image']
      return self._embed(self.params, self.network_state, images), batch['row']

    (embeddings, rows), labels = features.extract(forward, self._one_pass(source))
    self.num_images += len(labels)
    self.seconds += time.perf_counter() - start
    return representations.Split(embeddings, labels), rows


def preparation(
  mean: Sequence[float], std: Sequence[float]
) -> Callable[[chex.Array], chex.Array]:
  """What normalises uint8 images [n, H, W, C] for an evaluation."""
  normalize = augment.create('none', mean=mean, std=std)
  # The policy draws nothing from its keys.
  return lambda images: normalize(
    jax.random.split(jax.random.key(0), len(images)), images
  )


def initial_values(
  network: hk.TransformedWithState, image_shape: Sequence[int], seed: int
) -> tuple[hk.Params, hk.State]:
  """Random parameters, and batch statistics of nothing, on the host.

  Args:
    network: a function of (images, is_training).
    image_shape: [H, W, C].
    seed: of the parameters.
  """
  init = jax.jit(lambda rng: network.init(rng, jnp.zeros((1, *image_shape)), True))
  return jax.device_get(init(jax.random.key(seed)))


def shapes(
  network: hk.TransformedWithState, image_shape: Sequence[int]
) -> tuple[hk.Params, hk.State]:
  """Shapes and types of `initial_values`, for values that will all be replaced."""
  init = lambda rng: network.init(rng, jnp.zeros((1, *image_shape)), True)
  return jax.eval_shape(init, jax.random.key(0))


def calibrated(
  network: hk.TransformedWithState,
  params: hk.Params,
  network_state: hk.State,
  prepare: Callable[[chex.Array], chex.Array],
  batch: loader.Batch,
) -> hk.State:
  """Batch statistics of a batch of `loader.one_pass`, for a network without its own.

  Args:
    network: a function of (images, is_training).
    params, network_state: replicated over the devices.
    prepare: normalises images.
    batch: of this host.
  """
  update = parallel.pmap(
    lambda params, state, images: network.apply(
      params, state, None, prepare(images), True
    )[1]
  )
  return update(params, network_state, parallel.shard(batch['image']))
