"""InfoNCE (van den Oord et al., 2018), as NT-Xent of SimCLR (Chen et al., 2020)."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax

from sslhsic import kernels
from sslhsic.losses import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


@dataclasses.dataclass(frozen=True)
class InfoNCE(loss_lib.Loss):
  """−log( exp⟨z, z⁺⟩/τ / Σ exp⟨z, z'⟩/τ ), the mean over all features z.

  z⁺ is the other view of the image of z. Without a target network z' runs over all
  features of the global batch but z itself (NT-Xent, https://arxiv.org/abs/2002.05709).
  With one, z is a prediction, and z' runs over the target network's projections of the
  other view (as in MoCo v3, https://arxiv.org/abs/2104.02057, without its factor 2τ).

  Attributes:
    temperature: τ.
  """

  temperature: float = 0.1

  def kernel_of(self, params: tuple[()]) -> kernels.Linear:
    """⟨x, y⟩/τ, what the loss has in its exponent."""
    del params
    return kernels.Linear(scale=self.temperature**0.5)

  def __call__(
    self,
    params: tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`."""
    del params, rng
    projections_lib.check(projections)
    if projections.target is None:
      logits, labels = self._against_all(projections.online, axis_name)
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
    """Logits [2, b, 2B] of this device's features against all, and the positives."""
    _, local_batch, dim = z.shape
    everything = collectives.gather_images(z, axis_name)
    batch_size = everything.shape[1]
    image = collectives.image_offset(local_batch, axis_name) + jnp.arange(local_batch)
    itself = jnp.stack([image, image + batch_size])
    logits = self._similarities(z, everything.reshape(-1, dim))
    is_itself = itself[..., None] == jnp.arange(2 * batch_size)[None, None]
    return jnp.where(is_itself, -jnp.inf, logits), itself[::-1]

  def _against_target(self, projections, axis_name):
    """Logits [2, b, B] of predictions against the other view, and the positives."""
    targets = collectives.gather_images(projections.target[::-1], axis_name)
    local_batch = projections.online.shape[1]
    image = collectives.image_offset(local_batch, axis_name) + jnp.arange(local_batch)
    logits = jnp.stack(
      [
        self._similarities(z, t)
        for z, t in zip(projections.online, targets, strict=True)
      ]
    )
    return logits, jnp.stack([image, image])

  def _similarities(self, x, y):
    inner = jnp.matmul(
      x.astype(jnp.float32), y.T.astype(jnp.float32), precision='highest'
    )
    return inner / self.temperature
