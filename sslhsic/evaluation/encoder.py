"""A frozen encoder, for the evaluations that do not train it."""

import functools
import time
from collections.abc import Callable, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import augment, parallel
from sslhsic.data import images as images_lib
from sslhsic.data import loader, resampling, sources
from sslhsic.evaluation import features, representations
from sslhsic.networks import classifier
from sslhsic.weights import pretrained
from sslhsic.weights import settings as settings_lib

CROPS = {'centre': loader.centre_crop, 'shorter_side': loader.shorter_side}


class FrozenEncoder:
  """An encoder in evaluation mode, on all devices.

  Args:
    settings: its network, and the normalisation of the images.
    init_from: where its values come from, see `pretrained.load`.
    source: images like those to embed; if the values are random, the batch statistics
      are those of its first batch.
    crop: of the images, see `crop`.
    batch_size: over all devices.
    max_bad_fraction: share of the images that may be bad.
    max_pixels: of an image; larger ones are bad.
    seed: of random initial values.

  Raises:
    ValueError: as `pretrained.load` and `networks.create`, or the batch size does not
      fit the devices.

  Attributes:
    params, network_state: replicated over the devices.
    description: where the values come from.
    fingerprint: of the values.
    embedding_size: c.
    num_images, seconds: embedded so far, and how long it took.
    one_pass: batches of a source, as the encoder sees them; see `loader.one_pass`.
  """

  def __init__(
    self,
    settings: settings_lib.Settings,
    *,
    init_from: str,
    source: sources.Source,
    crop: loader.Crop,
    batch_size: int,
    max_bad_fraction: float,
    max_pixels: int = images_lib.MAX_PIXELS,
    seed: int = 0,
  ):
    parallel.per_device(batch_size)
    self.one_pass = functools.partial(
      loader.one_pass,
      batch_size=batch_size,
      crop=crop,
      max_bad_fraction=max_bad_fraction,
      max_pixels=max_pixels,
      num_channels=len(settings.mean),
    )
    self._network = classifier.encoder(
      encoder=settings.encoder,
      encoder_options=settings.encoder_options,
      axis_name=parallel.AXIS_NAME,
    )
    mean, std = settings.mean, settings.std
    self.prepare = preparation(mean, std)
    image_shape = loader.image_shape(source, crop, max_pixels, len(mean))
    initial = initial_values(self._network, image_shape, seed)
    start = pretrained.load(
      init_from,
      *initial,
      encoder=settings.encoder,
      encoder_options=settings.encoder_options,
      mean=mean,
      std=std,
    )
    images = jnp.zeros((1, *image_shape))
    # The size of an embedding, without running the network.
    embedding = jax.eval_shape(self.apply, start.params, start.network_state, images)
    self.embedding_size = embedding.shape[1]
    self.description, self.fingerprint = start.description, start.fingerprint
    self.params = parallel.replicate(start.params)
    self.network_state = parallel.replicate(start.network_state)
    if init_from == pretrained.RANDOM:
      # Random weights have no batch statistics: a batch in training mode gives some.
      calibrate = calibration(self._network, self.prepare)
      images = parallel.shard(next(self.one_pass(source))['image'])
      self.network_state = calibrate(self.params, self.network_state, images)
    # Normalised on the devices: uint8 is a quarter of float32 to send there.
    self._embed = parallel.pmap(
      lambda params, state, images: self.apply(params, state, self.prepare(images))
    )
    self.num_images, self.seconds = 0, 0.0

  def apply(
    self, params: hk.Params, network_state: hk.State, images: chex.Array
  ) -> chex.Array:
    """Embeddings [n, c] of normalised images, inside a mapped function."""
    return self._network.apply(params, network_state, None, images, False)[0]

  def embed_share(self, source: sources.Source) -> features.Share:
    """Embeddings of the images of this host's part of a source that have a label."""
    start = time.perf_counter()
    found = features.share(
      lambda batch: self._embed(self.params, self.network_state, batch['image']),
      self.one_pass(source),
    )
    self.num_images += len(parallel.of_hosts(found.rows))
    self.seconds += time.perf_counter() - start
    return features.labelled(found, found.labels)

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

    (embeddings, rows), labels = features.extract(forward, self.one_pass(source))
    self.num_images += len(labels)
    self.seconds += time.perf_counter() - start
    return representations.Split(embeddings, labels), rows


def crop(
  size: int, name: str = 'centre', interpolation: str = 'bicubic'
) -> loader.Crop:
  """The crop of an evaluation.

  Args:
    size: in pixels; 0 means whole images.
    name: one of `CROPS`.
    interpolation: see `resampling`.

  Raises:
    ValueError: there is no such crop or interpolation.
  """
  if not size:
    return loader.whole_image
  resampling.check(interpolation, 'config.data.evaluation_interpolation')
  if name not in CROPS:
    raise ValueError(
      f'unknown config.data.evaluation_crop {name!r}; use one of {", ".join(CROPS)}'
    )
  return CROPS[name](size, interpolation)


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


def calibration(
  network: hk.TransformedWithState, prepare: Callable[[chex.Array], chex.Array]
) -> Callable[[hk.Params, hk.State, chex.Array], hk.State]:
  """What gives a network without batch statistics those of a batch of images.

  Args:
    network: a function of (images, is_training).
    prepare: normalises images.

  Returns:
    A function of parameters and statistics, replicated over the devices, and uint8
    images [devices, b, H, W, C]; each call of `calibration` compiles another one.
  """
  return parallel.pmap(
    lambda params, state, images: network.apply(
      params, state, None, prepare(images), True
    )[1]
  )
