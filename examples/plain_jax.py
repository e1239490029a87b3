"""SSL-HSIC in plain JAX, the batch spread over all devices by `jax.shard_map`.

python -m examples.plain_jax
XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m examples.plain_jax

On one device and on eight the loss is the same, that of the global batch, and so is its
gradient, taken from outside. There is no target network: the projections of two views
of an image are compared with each other.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from examples import digits
from sslhsic import losses

LOSS = losses.create('ssl_hsic', gamma=1.0)
SIZES = (64, 512, 128, 128, 64)  # Pixels, hidden, embedding, hidden, projection.

# The network and what the loss learns, its kernel scale, each with an Adam of its own.
OPTIMIZER = optax.multi_transform(
  {'network': optax.adam(1e-3), 'loss': optax.adam(1e-2)},
  {'network': 'network', 'loss': 'loss'},
)


def init_network(rng: jax.Array) -> list[jax.Array]:
  """Weights of four linear layers: two of the encoder, two of the projector."""
  init, shapes = jax.nn.initializers.he_normal(), itertools.pairwise(SIZES)
  keys = jax.random.split(rng, len(SIZES) - 1)
  return [init(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def embed(network: list[jax.Array], images: jax.Array) -> jax.Array:
  """Embeddings of images: [b, 8, 8] -> [b, 128]."""
  hidden = jax.nn.relu(images.reshape(-1, 64) @ network[0])
  return jax.nn.relu(hidden @ network[1])


def project(network: list[jax.Array], images: jax.Array) -> jax.Array:
  """What the loss sees of images: [b, 8, 8] -> [b, 64], of unit norm."""
  hidden = jax.nn.relu(embed(network, images) @ network[2])
  return losses.l2_normalize(hidden @ network[3])


def loss_on_device(trained, rng, views):
  """The loss of the global batch, from this device's part [2, b, 8, 8] of its views."""
  online = jnp.stack([project(trained['network'], images) for images in views])
  projections = losses.Projections(online)
  return LOSS(trained['loss'], rng, projections, axis_name='devices')


def make_step(devices):
  """The training step on some devices; views are spread over them, all else copied."""
  copied, spread = PartitionSpec(), PartitionSpec(None, 'devices')
  global_loss = jax.shard_map(
    loss_on_device,
    mesh=jax.sharding.Mesh(np.array(devices), ['devices']),
    in_specs=(copied, copied, spread),
    out_specs=copied,
  )

  @jax.jit
  def step(trained, opt_state, rng, images):
    view_rng, loss_rng = jax.random.split(rng)
    views = digits.two_views(view_rng, images)
    grad_fn = jax.value_and_grad(global_loss, has_aux=True)
    (loss, _), gradients = grad_fn(trained, loss_rng, views)
    updates, opt_state = OPTIMIZER.update(gradients, opt_state, trained)
    return optax.apply_updates(trained, updates), opt_state, loss

  return step


def main(num_steps: int = 300, seed: int = 0, devices=None) -> digits.Result:
  """Trains, by default on all devices."""
  network_rng, loss_rng, step_rng = jax.random.split(jax.random.key(seed), 3)
  trained = {
    'network': init_network(network_rng),
    'loss': LOSS.init(loss_rng, SIZES[-1]),
  }
  opt_state, step = OPTIMIZER.init(trained), make_step(devices or jax.devices())
  score = lambda: digits.knn_accuracy(functools.partial(embed, trained['network']))
  before, history = score(), []
  for number, images in enumerate(digits.batches(num_steps, seed)):
    rng = jax.random.fold_in(step_rng, number)
    trained, opt_state, loss = step(trained, opt_state, rng, images)
    history.append(float(loss))
  return digits.Result(history, before, score())


if __name__ == '__main__':
  print(main())
