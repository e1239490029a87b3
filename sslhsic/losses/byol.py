"""The loss of BYOL (Grill et al., 2020)."""

import dataclasses
from typing import ClassVar

import chex
import jax.numpy as jnp

from sslhsic import collectives
from sslhsic.losses import loss as loss_lib
from sslhsic.losses import projections as projections_lib


@dataclasses.dataclass(frozen=True)
class BYOL(loss_lib.Loss):
  """2·E‖q − t‖² = 2·E (2 − 2⟨q, t⟩), the mean over images and pairs of views.

  q is the online network's prediction of a view, t the target network's projection of
  another. With two views it is the sum over both (https://arxiv.org/abs/2006.07733,
  equation 2 and its symmetric). With a
  target network that is the online one (a target decay of 0), it is that of SimSiam
  (https://arxiv.org/abs/2011.10566), up to scale and a constant.
  """

  needs_target: ClassVar[bool] = True

  def __call__(
    self,
    params: tuple[()],
    rng: chex.PRNGKey,
    projections: projections_lib.Projections,
    axis_name: str | None = None,
    state: chex.ArrayTree = (),
  ) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of the global batch, see `Loss`."""
    del params, rng, state
    projections_lib.check(projections)
    if projections.target is None:
      raise ValueError('byol needs a target network; use config.target_network = True')
    similarities = jnp.stack([jnp.sum(q * t, axis=1) for q, t in projections.pairs])
    similarity = collectives.global_mean(similarities, axis_name)
    loss = 2 * (2 - 2 * similarity)
    return loss, {'loss': loss, 'positive_similarity': similarity}
