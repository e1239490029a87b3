"""Outputs of the online network in evaluation mode, for whole splits on all devices."""

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sslhsic import augment, parallel
from sslhsic.data import compared, loader, sources
from sslhsic.evaluation import encoder, features
from sslhsic.pretraining import step, views

# Replicated parameters and batch statistics of the online network.
Network = tuple[hk.Params, hk.State]
Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
  """A split of a data set, by name.

  Attributes:
    source, split: see `sources.create`.
    has_labels: whether images without a label are left out.
  """

  source: str
  split: str
  has_labels: bool = False


def _open(part: Part) -> sources.Source:
  source = sources.create(part.source, part.split)
  if not part.has_labels:
    return source
  return compared.labelled(f'{part.source} {part.split}', source)


class Extraction:
  """Outputs of the online network; each function on the devices is compiled once.

  Args:
    config: the configuration of the pre-training.
    training: with the online network, and the augmentation of the views.
    of_views: the views of an image.

  Attributes:
    source: gives the examples of a part, which are opened once.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    training: step.Training,
    of_views: Sequence[views.View],
  ):
    data, count = config.data, training.num_global_views
    self.source = functools.cache(_open)
    self._batch_size = config.evaluation.batch_size
    self._reading = {
      'max_bad_fraction': data.max_bad_fraction,
      'max_pixels': data.max_pixels,
      'num_channels': len(data.mean),
    }
    self._seed, self._seed_key = config.seed, jax.random.key(config.seed)
    self._crop = encoder.crop(
      data.crop_size, data.evaluation_crop, data.evaluation_interpolation
    )
    self._view_crops = [
      view.crop(data.crop_size, data.interpolation) for view in of_views[:count]
    ]
    self._policies = training.policies[:count]
    self._prepare = encoder.preparation(data.mean, data.std)
    self._network = training.model.online
    self._embed = parallel.pmap(self._embed_images)
    self._embed_views = parallel.pmap(self._augment_and_embed, in_axes=(0, 0, 0, None))
    self._calibrate = encoder.calibration(self._network, self._prepare)

  def of_split(self, network: Network, part: Part, names: Collection[str]) -> Arrays:
    """Outputs for this host's part of a split; `features.whole` gathers all.

    Args:
      network: the network.
      part: the split.
      names: fields of `model.Outputs`.

    Returns:
      [n, d] under each name, 'label' [n], and 'row' [n] of the split.
    """

    def forward(batch):
      outputs = self._embed(*network, batch['image'])
      return {name: getattr(outputs, name) for name in names}

    found = features.share(forward, self.one_pass(self.source(part)))
    return found.features | {'label': found.labels, 'row': found.rows}

  def of_views(
    self,
    network: Network,
    part: Part,
    names: Collection[str],
    num_images: int,
    num_views: int,
  ) -> Arrays:
    """Outputs for augmented views of some images of a split.

    Images and views are a function of the seed: the first of the endless stream that a
    training on this split has, with the crops and policies of the global views in turn.

    Args:
      network: the network.
      part: the split, of at least n images.
      names: fields of `model.Outputs`.
      num_images: n.
      num_views: q, of each image.

    Returns:
      [n, q, d] under each name.
    """
    # On the devices, as many views as an evaluation has images there.
    devices = len(parallel.devices())
    batch_size = max(1, self._batch_size // (num_views * devices)) * devices
    stream = loader.views(
      self.source(part),
      batch_size=batch_size,
      seed=self._seed,
      crops=[self._view_crops[i % len(self._view_crops)] for i in range(num_views)],
      **self._reading,
    )
    batches = []
    for _ in range(-(-num_images // batch_size)):
      outputs = self._embed_views(
        *network, parallel.shard(next(stream)), self._seed_key
      )
      batches.append(parallel.gather({name: getattr(outputs, name) for name in names}))
    stream.close()
    # The stream is endless: the last batch can have more images than asked for.
    return jax.tree.map(lambda *x: np.concatenate(x)[:num_images], *batches)

  def calibrated(self, network: Network, source: sources.Source) -> Network:
    """The network with batch statistics of some images of a source."""
    batch = next(self.one_pass(source))
    params, network_state = network
    images = parallel.shard(batch['image'])
    return params, self._calibrate(params, network_state, images)

  def one_pass(self, source: sources.Source) -> Iterator[loader.Batch]:
    """Every image of a source once."""
    return loader.one_pass(
      source,
      batch_size=self._batch_size,
      crop=self._crop,
      **self._reading,
    )

  # On a device

  def _embed_images(self, params, network_state, images):
    return self._apply(params, network_state, self._prepare(images))

  def _apply(self, params, network_state, images):
    return self._network.apply(params, network_state, None, images, False)[0]

  def _augment_and_embed(
    self,
    params: hk.Params,
    network_state: hk.State,
    batch: dict[str, chex.Array],
    seed_key: chex.PRNGKey,
  ) -> chex.ArrayTree:
    """Outputs [b, q, d]; the views of a policy go through the network together."""
    num_views = sum(name.startswith('view') for name in batch)
    outputs = []
    # Views come out grouped by policy; no evaluator depends on their order.
    for first, policy in enumerate(self._policies[:num_views]):
      numbers = range(first, num_views, len(self._policies))
      images = jnp.stack([batch[f'view{number + 1}'] for number in numbers], axis=1)
      keys = jnp.stack(
        [augment.keys(seed_key, batch['index'], number) for number in numbers], axis=1
      )
      # Keys [b, k] of the k views of this policy; policy and network take them flat.
      augmented = policy(keys.reshape(-1), images.reshape(-1, *images.shape[2:]))
      found = self._apply(params, network_state, augmented)
      shape = keys.shape
      outputs.append(jax.tree.map(lambda x, s=shape: x.reshape(*s, -1), found))
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *outputs)
