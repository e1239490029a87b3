"""The networks of the classification evaluations, as pairs of Haiku functions.

The names of their parameters are those of the online network of pre-training.
"""

from collections.abc import Callable, Mapping

import chex
import haiku as hk
import jax.numpy as jnp

from sslhsic import networks

# The module of the encoder in every network, as `networks.create` names it.
ENCODER = 'encoder'


def is_of_encoder(module: str) -> bool:
  """Whether a module is the encoder or inside it, by its full name."""
  # The encoder may have parameters of its own, such as a class token.
  return module.partition('/')[0] == ENCODER


def encoder(
  *, encoder: str, encoder_options: Mapping, axis_name: str | None = None
) -> hk.TransformedWithState:
  """The encoder alone.

  Args:
    encoder: its name, see `networks.ENCODERS`.
    encoder_options: what replaces arguments of the preset.
    axis_name: the mapped axis over which batch statistics are synchronised.

  Returns:
    Functions init and apply of (images [n, H, W, C], is_training) and, where images are
    padded, their content [n, 2], see `networks.Encoder`; apply gives the embedding
    [n, c], float32.
  """

  return hk.transform_with_state(_embed(encoder, encoder_options, axis_name))


def classifier(
  *,
  encoder: str,
  encoder_options: Mapping,
  num_classes: int,
  axis_name: str | None = None,
) -> hk.TransformedWithState:
  """The encoder with a linear layer, which starts at zero, to be trained as a whole.

  Arguments as those of `encoder`; apply gives logits [n, num_classes], float32.
  """
  embed = _embed(encoder, encoder_options, axis_name)

  def forward(images: chex.Array, is_training: bool) -> chex.Array:
    layer = hk.Linear(num_classes, w_init=jnp.zeros, name='classifier')
    return layer(embed(images, is_training))

  return hk.transform_with_state(forward)


def _embed(
  encoder: str, encoder_options: Mapping, axis_name: str | None
) -> Callable[..., chex.Array]:
  def embed(
    images: chex.Array, is_training: bool, content: chex.Array | None = None
  ) -> chex.Array:
    network = networks.create(encoder, **encoder_options, axis_name=axis_name)
    # Encoders that no detector uses do not have the argument.
    padding = {} if content is None else {'content': content}
    return network(images, is_training=is_training, **padding).embedding

  return embed
