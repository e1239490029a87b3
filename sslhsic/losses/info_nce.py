"""InfoNCE (van den Oord et al., 2018), as NT-Xent of SimCLR (Chen et al., 2020)."""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sslhsic import collectives, kernels
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


class Queue(NamedTuple):
  """Projections of earlier batches.

  Attributes:
    features: [K, d], unit norm.
    position: int32, the row that is written next.
  """

  features: chex.Array
  position: chex.Array


@dataclasses.dataclass(frozen=True)
class InfoNCE(loss_lib.Loss):
  """−log( exp⟨z, z⁺⟩/τ / Σ exp⟨z, z'⟩/τ ), the mean over pairs (z, z⁺) of features.

  z and z⁺ are of two different views of an image, in both orders. Without a target
  network z' runs over all features of the global batch but z itself (NT-Xent,
  https://arxiv.org/abs/2002.05709). With one, z is a prediction, z⁺ the target
  network's projection of another view, and z' runs over the projections of that view
  (as in MoCo v3, https://arxiv.org/abs/2104.02057, without its factor 2τ).

  With a queue, z' runs over z⁺ and the K projections of earlier batches instead (MoCo
  v2, https://arxiv.org/abs/2003.04297).

  Attributes:
    temperature: τ, which divides similarities.
    queue_size: K, projections in the queue, for a target network only; a multiple of
      the G·B projections that a batch adds. 0: no queue.

  Raises:
    ValueError: the queue is smaller than nothing.
  """

  temperature: float = 0.1
  queue_size: int = 0

  def __post_init__(self):
    if self.queue_size < 0:
      raise ValueError(f'queue_size is {self.queue_size}; use 0 for no queue, or more')

  @property
  def needs_target(self) -> bool:
    """Whether there is a queue: the target network fills it."""
    return self.queue_size > 0

  def kernel_of(self, params: tuple[()]) -> kernels.Linear:
    """⟨x, y⟩/τ, what the loss has in its exponent."""
    del params
    return kernels.Linear(scale=self.temperature**0.5)

  def init_state(self, rng: chex.PRNGKey, dim: int) -> Queue | tuple[()]:
    """A queue of random directions; nothing without a queue."""
    if not self.queue_size:
      return ()
    features = jax.random.normal(rng, [self.queue_size, dim])
    return Queue(projections_lib.l2_normalize(features), jnp.int32(0))

  def next_state(
    self,
    state: Queue | tuple[()],
    projections: projections_lib.Projections,
    axis_name: str | None = None,
  ) -> Queue | tuple[()]:
    """The queue with the oldest projections replaced by the target's of this batch."""
    if not self.queue_size:
      return state
    new = collectives.gather_images(projections.target, axis_name)
    self._check_queue(*new.shape[:2])
    new = new.reshape(-1, new.shape[-1])
    # The number of new rows divides K, so that they never run past the end.
    features = jax.lax.dynamic_update_slice(
      state.features, new, (state.position, jnp.int32(0))
    )
    return Queue(features, (state.position + len(new)) % self.queue_size)

  def check_batch(self, *, local_batch: int, batch_size: int, num_targets: int) -> None:
    """Checks that the projections of batches fill the queue."""
    del local_batch
    self._check_queue(num_targets, batch_size)

  def _check_queue(self, num_targets: int, batch_size: int) -> None:
    if self.queue_size and self.queue_size % (num_targets * batch_size):
      raise ValueError(
        f'info_nce has queue_size = {self.queue_size}, and a batch of {batch_size} '
        f'images puts {num_targets} × {batch_size} projections of the target network '
        f'into the queue; use a multiple of {num_targets * batch_size}'
      )

  def __call__(
    self,
    params: tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
    state: Queue | tuple[()] = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`."""
    del params, rng
    projections_lib.check(projections)
    if self.queue_size and projections.target is None:
      raise ValueError('queue_size needs a target network; set target_network = True')
    if projections.target is None:
      logits, labels = self._against_all(projections.online, axis_name)
    elif self.queue_size:
      logits, labels = self._against_queue(projections, state.features)
    else:
      logits, labels = self._against_target(projections, axis_name)
    mean = lambda x: collectives.global_mean(x, axis_name)
    positive = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    metrics = {
      'loss': mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)),
      'positive_similarity': mean(positive) * self.temperature,
      'log_partition': mean(jax.nn.logsumexp(logits, axis=-1)),
      'retrieval_top1': mean((logits.argmax(axis=-1) == labels).astype(jnp.float32)),
    }
    return metrics['loss'], metrics

  def _against_all(self, z, axis_name):
    """Logits [V(V−1), b, V·B] of this device's features against all, and positives."""
    num_views, local_batch, dim = z.shape
    everything = collectives.gather_images(z, axis_name)
    batch_size = everything.shape[1]
    image = collectives.image_offset(local_batch, axis_name) + jnp.arange(local_batch)
    column = jnp.arange(num_views * batch_size)
    logits, labels = [], []
    for view in range(num_views):
      similarities = self._similarities(z[view], everything.reshape(-1, dim))
      itself = image + view * batch_size
      # exp(−∞) = 0 takes the feature itself out of the sum.
      similarities = jnp.where(itself[:, None] == column[None], -jnp.inf, similarities)
      others = [other for other in range(num_views) if other != view]
      # One softmax for each positive, with the other positives in its denominator.
      logits += [similarities] * len(others)
      labels += [image + other * batch_size for other in others]
    return jnp.stack(logits), jnp.stack(labels)

  def _against_target(self, projections, axis_name):
    """Logits [pairs, b, B] of predictions against another view, and the positives."""
    targets = collectives.gather_images(projections.target, axis_name)
    local_batch = projections.online.shape[1]
    image = collectives.image_offset(local_batch, axis_name) + jnp.arange(local_batch)
    numbers = projections.pair_numbers
    logits = [self._similarities(projections.online[v], targets[w]) for v, w in numbers]
    return jnp.stack(logits), jnp.stack([image] * len(numbers))

  def _against_queue(self, projections, queue):
    """Logits [pairs, b, 1 + K] of predictions, the positive first, and its place."""
    logits = []
    for z, positive in projections.pairs:
      inner = jnp.sum(z * positive, axis=1, keepdims=True) / self.temperature
      logits.append(jnp.concatenate([inner, self._similarities(z, queue)], axis=1))
    logits = jnp.stack(logits)
    return logits, jnp.zeros(logits.shape[:2], jnp.int32)

  def _similarities(self, x, y):
    inner = jnp.matmul(
      x.astype(jnp.float32), y.T.astype(jnp.float32), precision='highest'
    )
    return inner / self.temperature
