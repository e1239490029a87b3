"""The online and the target network of pre-training, as pairs of Haiku functions."""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import haiku as hk
import jax

from sslhsic.networks import heads, mixed_precision, resnet


class Outputs(NamedTuple):
  """What a branch makes of n images.

  Attributes:
    embedding: [n, c], from the encoder.
    projection: [n, d], from the projector.
    prediction: [n, d], from the predictor, or None where there is none.
    logits: [n, num_classes] of the monitoring classifier, whose gradient stops at the
      embedding; or None where there is none.
  """

  embedding: chex.Array
  projection: chex.Array
  prediction: chex.Array | None = None
  logits: chex.Array | None = None


def online(
  *,
  encoder: str,
  encoder_options: Mapping,
  head: Mapping,
  with_predictor: bool,
  num_classes: int,
  axis_name: str | None = None,
  precision: str = 'float32',
) -> hk.TransformedWithState:
  """Encoder, projector, and if wanted predictor and a classifier for monitoring.

  Args:
    encoder: name of the encoder, see `resnet.PRESETS`.
    encoder_options: what replaces arguments of the preset.
    head: `hidden_size` and `output_size` of projector and predictor.
    with_predictor: whether there is a predictor; only with a target network.
    num_classes: of the classifier; 0: there is none.
    axis_name: the mapped axis over which batch statistics are synchronised.
    precision: in which the network computes, see `mixed_precision`. The classifier
      computes in float32.

  Returns:
    Functions init and apply of (images [n, H, W, C], is_training); apply gives
    `Outputs`, float32.

  Raises:
    ValueError: there is no such precision.
  """

  encode = _encoder_and_projector(encoder, encoder_options, head, axis_name)

  def forward(images: chex.Array, is_training: bool) -> Outputs:
    embedding, projection = encode(images, is_training)
    prediction = None
    if with_predictor:
      predictor = heads.MLP(**head, axis_name=axis_name, name='predictor')
      prediction = predictor(projection, is_training=is_training)
    logits = None
    if num_classes:
      classifier = hk.Linear(num_classes, name='classifier')
      logits = classifier(jax.lax.stop_gradient(embedding))
    return Outputs(embedding, projection, prediction, logits)

  return hk.transform_with_state(mixed_precision.policy(precision)(forward))


def target(
  *,
  encoder: str,
  encoder_options: Mapping,
  head: Mapping,
  axis_name: str | None = None,
  precision: str = 'float32',
) -> hk.TransformedWithState:
  """Encoder and projector; arguments, and names of parameters, as in `online`."""
  encode = _encoder_and_projector(encoder, encoder_options, head, axis_name)

  def forward(images: chex.Array, is_training: bool) -> Outputs:
    return Outputs(*encode(images, is_training))

  return hk.transform_with_state(mixed_precision.policy(precision)(forward))


def _encoder_and_projector(encoder, encoder_options, head, axis_name):
  def encode(images, is_training):
    network = resnet.create(
      encoder, **encoder_options, axis_name=axis_name, name='encoder'
    )
    embedding = network(images, is_training=is_training).embedding
    projector = heads.MLP(**head, axis_name=axis_name, name='projector')
    return embedding, projector(embedding, is_training=is_training)

  return encode
