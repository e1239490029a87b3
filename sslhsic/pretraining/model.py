"""The online and the target network, and what they make of the views of an image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax

from sslhsic import networks
from sslhsic.networks import heads, mixed_precision


class Outputs(NamedTuple):
  """What a network makes of n images, float32.

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


class OnlineFeatures(NamedTuple):
  """What the online network gives the losses, of n images.

  Attributes:
    views: [n, d] of each view; predictions with a target network, else projections.
    projection: [n, d] of view 1.
    logits: [n, num_classes] of view 1, or None.
    embeddings: [n, c] of each view, if the loss has a term of them; or None.
  """

  views: list[chex.Array]
  projection: chex.Array
  logits: chex.Array | None
  embeddings: list[chex.Array] | None = None


class Model(NamedTuple):
  """The networks of pre-training, functions of (images [n, H, W, C], is_training).

  Attributes:
    online: encoder, projector, with a target network a predictor, and the monitoring
      classifier; apply gives `Outputs`.
    target: encoder and projector, with the names of the online network; or None.
    gives_embeddings: whether the losses see embeddings, too.
  """

  online: hk.TransformedWithState
  target: hk.TransformedWithState | None
  gives_embeddings: bool = False

  def online_features(
    self, params: hk.Params, network_state: hk.State, views: Sequence[chex.Array]
  ) -> tuple[OnlineFeatures, hk.State]:
    """Features of all views [n, H, W, C] in training, and the new batch statistics."""
    outputs, network_state = _forward(self.online, params, network_state, views)
    compared = [
      out.projection if out.prediction is None else out.prediction for out in outputs
    ]
    first = outputs[0]
    embeddings = None
    if self.gives_embeddings:
      embeddings = [out.embedding for out in outputs]
    features = OnlineFeatures(compared, first.projection, first.logits, embeddings)
    return features, network_state

  def target_features(
    self, params: hk.Params, network_state: hk.State, views: Sequence[chex.Array]
  ) -> tuple[list[chex.Array], hk.State]:
    """Projections [n, d] of these views, and the new batch statistics."""
    outputs, network_state = _forward(self.target, params, network_state, views)
    return [out.projection for out in outputs], network_state


def create(
  *,
  encoder: str,
  encoder_options: Mapping,
  head: Mapping,
  with_target: bool,
  num_classes: int,
  axis_name: str | None = None,
  precision: str = 'float32',
  gives_embeddings: bool = False,
) -> Model:
  """Both networks.

  Args:
    encoder: name of the encoder, see `networks.ENCODERS`.
    encoder_options: what replaces arguments of the preset.
    head: `hidden_size` and `output_size` of projector and predictor.
    with_target: whether there is a target network, and so a predictor.
    num_classes: of the classifier; 0: there is none.
    axis_name: the mapped axis over which batch statistics are synchronised.
    precision: in which the networks compute, see `mixed_precision`. The classifier
      computes in float32.
    gives_embeddings: see `Model`.

  Raises:
    ValueError: there is no such precision; or, by the functions, as `networks.create`.
  """

  def encode(images, is_training):
    network = networks.create(encoder, **encoder_options, axis_name=axis_name)
    embedding = network(images, is_training=is_training).embedding
    projector = heads.MLP(**head, axis_name=axis_name, name='projector')
    return embedding, projector(embedding, is_training=is_training)

  def online(images: chex.Array, is_training: bool) -> Outputs:
    embedding, projection = encode(images, is_training)
    prediction, logits = None, None
    if with_target:
      predictor = heads.MLP(**head, axis_name=axis_name, name='predictor')
      prediction = predictor(projection, is_training=is_training)
    if num_classes:
      classifier = hk.Linear(num_classes, name='classifier')
      logits = classifier(jax.lax.stop_gradient(embedding))
    return Outputs(embedding, projection, prediction, logits)

  def target(images: chex.Array, is_training: bool) -> Outputs:
    return Outputs(*encode(images, is_training))

  policy = mixed_precision.policy(precision)
  transform = lambda network: hk.transform_with_state(policy(network))
  return Model(
    transform(online), transform(target) if with_target else None, gives_embeddings
  )


def _forward(network, params, network_state, views):
  """A pass for each view, so that batch statistics are those of one view."""
  outputs = []
  for images in views:
    # The moving averages take in the statistics of one view after another.
    output, network_state = network.apply(params, network_state, None, images, True)
    outputs.append(output)
  return outputs, network_state
