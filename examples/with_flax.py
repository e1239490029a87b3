"""SSL-HSIC in Flax (NNX), with a target network.

python -m examples.with_flax

The online network predicts, for each view, what the target network, a moving average of
it, makes of that image: the loss sees four features of each. What the loss learns, its
kernel scale, is a parameter of a module like any other.
"""

import jax
import optax
from flax import nnx

from examples import digits
from sslhsic import losses


class Network(nnx.Module):
  """An encoder and its projector."""

  def __init__(self, rngs: nnx.Rngs):
    self.encoder = nnx.Sequential(
      nnx.Linear(64, 512, rngs=rngs), nnx.relu, nnx.Linear(512, 128, rngs=rngs)
    )
    self.projector = mlp(128, rngs)

  def embed(self, images: jax.Array) -> jax.Array:
    """Embeddings: [..., 8, 8] -> [..., 128]."""
    return nnx.relu(self.encoder(images.reshape(*images.shape[:-2], 64)))

  def __call__(self, images: jax.Array) -> jax.Array:
    """Projections: [..., 8, 8] -> [..., 64]."""
    return self.projector(self.embed(images))


class Objective(nnx.Module):
  """The loss, with what it learns as parameters."""

  def __init__(self, rngs: nnx.Rngs):
    self.loss = losses.create('ssl_hsic', gamma=0.5)
    params = self.loss.init(rngs.params(), 64)
    self.params = nnx.data(jax.tree.map(nnx.Param, params))

  def __call__(self, rng: jax.Array, projections: losses.Projections) -> jax.Array:
    """The loss alone, without its terms."""
    return self.loss(nnx.as_pure(self.params), rng, projections)[0]


def mlp(input_size: int, rngs: nnx.Rngs) -> nnx.Sequential:
  """A projector or a predictor, to 64 features."""
  return nnx.Sequential(
    nnx.Linear(input_size, 128, rngs=rngs), nnx.relu, nnx.Linear(128, 64, rngs=rngs)
  )


def loss_fn(online, predictor, objective, target, views, rng):
  """The loss of views [2, b, 8, 8]."""
  projections = losses.Projections(
    online=losses.l2_normalize(predictor(online(views))),
    target=losses.l2_normalize(jax.lax.stop_gradient(target(views))),
  )
  return objective(rng, projections)


def average(target: Network, online: Network, decay: float = 0.95) -> None:
  """Moves the target network towards the online one."""
  moved = optax.incremental_update(nnx.state(online), nnx.state(target), 1 - decay)
  nnx.update(target, moved)


@nnx.jit
def step(models, target, optimizers, rngs, images):
  """An update of everything, in place."""
  views = digits.two_views(rngs.views(), images)
  grad_fn = nnx.value_and_grad(loss_fn, argnums=(0, 1, 2))
  loss, gradients = grad_fn(*models, target, views, rngs.loss())
  for optimizer, model, gradient in zip(optimizers, models, gradients, strict=True):
    optimizer.update(model, gradient)
  average(target, models[0])
  return loss


def main(num_steps: int = 400, seed: int = 0) -> digits.Result:
  """Trains the network."""
  rngs = nnx.Rngs(seed)
  online = Network(rngs)
  models = (online, mlp(64, rngs), Objective(rngs))
  optimizers = tuple(
    nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
    for model, rate in zip(models, (1e-3, 1e-3, 1e-2), strict=True)
  )
  target = nnx.clone(online)
  before = digits.knn_accuracy(online.embed)
  history = [
    float(step(models, target, optimizers, rngs, images))
    for images in digits.batches(num_steps, seed)
  ]
  return digits.Result(history, before, digits.knn_accuracy(online.embed))


if __name__ == '__main__':
  print(main())
