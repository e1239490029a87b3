"""SSL-HSIC in Equinox, exact: from all pairs of features, without random ones.

python -m examples.with_equinox

For batches as small as this one that costs little. Network and kernel scale, which the
loss learns, are one tree of parameters.
"""

import equinox as eqx
import jax
import optax

from examples import digits
from sslhsic import losses

LOSS = losses.create('ssl_hsic', gamma=1.0, estimator='exact')


class Network(eqx.Module):
  """An encoder and its projector, of one image."""

  encoder: eqx.nn.MLP
  projector: eqx.nn.MLP

  def __init__(self, rng: jax.Array):
    encoder_rng, projector_rng = jax.random.split(rng)
    self.encoder = eqx.nn.MLP(
      64, 128, 512, depth=1, final_activation=jax.nn.relu, key=encoder_rng
    )
    self.projector = eqx.nn.MLP(128, 64, 128, depth=1, key=projector_rng)

  def embed(self, image: jax.Array) -> jax.Array:
    """The embedding: [8, 8] -> [128]."""
    return self.encoder(image.reshape(64))

  def __call__(self, image: jax.Array) -> jax.Array:
    """The projection: [8, 8] -> [64]."""
    return self.projector(self.embed(image))


def optimizer() -> optax.GradientTransformation:
  """Adam for the network, and one for what the loss learns."""
  return optax.multi_transform(
    {'network': optax.adam(1e-3), 'loss': optax.adam(1e-2)}, ('network', 'loss')
  )


@eqx.filter_value_and_grad
def loss_fn(trained, rng, views):
  """The loss of views [2, b, 8, 8], and its gradient by network and kernel scale."""
  network, loss_params = trained
  online = losses.l2_normalize(jax.vmap(jax.vmap(network))(views))
  return LOSS(loss_params, rng, losses.Projections(online))[0]


@eqx.filter_jit
def step(trained, opt_state, rng, images):
  """An update of network and kernel scale."""
  view_rng, loss_rng = jax.random.split(rng)
  loss, gradients = loss_fn(trained, loss_rng, digits.two_views(view_rng, images))
  updates, opt_state = optimizer().update(gradients, opt_state)
  return eqx.apply_updates(trained, updates), opt_state, loss


def main(num_steps: int = 300, seed: int = 0) -> digits.Result:
  """Trains the network."""
  network_rng, loss_rng, step_rng = jax.random.split(jax.random.key(seed), 3)
  trained = Network(network_rng), LOSS.init(loss_rng, 64)
  opt_state = optimizer().init(eqx.filter(trained, eqx.is_inexact_array))
  score = lambda: digits.knn_accuracy(jax.vmap(trained[0].embed))
  before, history = score(), []
  for number, images in enumerate(digits.batches(num_steps, seed)):
    rng = jax.random.fold_in(step_rng, number)
    trained, opt_state, loss = step(trained, opt_state, rng, images)
    history.append(float(loss))
  return digits.Result(history, before, score())


if __name__ == '__main__':
  print(main())
