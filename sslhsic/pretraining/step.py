"""One training step, from a batch of views to the next state; read `train_step`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sslhsic import augment, losses, microbatches, optim, parallel
from sslhsic.evaluation import dependence, diagnostics
from sslhsic.pretraining.model import Model, OnlineFeatures
from sslhsic.state import State

Scalars = dict[str, chex.Array]


class Training(NamedTuple):
  """What a step is made of, and no step changes.

  Attributes:
    model: the networks.
    policies: augmentation of each view on the device.
    num_global_views: G, how many views, the first ones, the target network sees.
    loss: the objective.
    optimizer: of the online network.
    loss_optimizer: of the parameters of the loss.
    schedule: learning rate by step, for the log.
    target_decay: decay of the target network by step.
    average: moving average of the parameters, for evaluation.
    num_microbatches: parts of a device's batch, one after another.
    with_instruments: whether HSIC, InfoNCE and more are measured exactly.
    dependence: a term of the metadata of the images, added to the loss; or None.
  """

  model: Model
  policies: Sequence[augment.Policy]
  num_global_views: int
  loss: losses.Loss
  optimizer: optax.GradientTransformation
  loss_optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  target_decay: Callable[[chex.Array], chex.Array]
  average: optax.GradientTransformation
  num_microbatches: int = 1
  with_instruments: bool = False
  dependence: losses.DependenceTerm | None = None


class Gradients(NamedTuple):
  """What a batch says of a state, before anything is updated.

  Attributes:
    params: gradient by the parameters of the online network, over all devices.
    loss_params: gradient by the parameters of the loss, over all devices.
    network_state: new batch statistics of the online network.
    target_state: new batch statistics of the target network, or None.
    loss_state: new state of the loss.
    scalars: terms of the loss, and measures of the features.
  """

  params: chex.ArrayTree
  loss_params: chex.ArrayTree
  network_state: chex.ArrayTree
  target_state: chex.ArrayTree | None
  loss_state: chex.ArrayTree
  scalars: Scalars


def initial_state(
  training: Training, rng: chex.PRNGKey, images: chex.Array, feature_size: int
) -> State:
  """Random parameters, and everything else at its start.

  Args:
    training: what a step is made of.
    rng: a JAX key.
    images: [n, H, W, C], of which only the shape matters.
    feature_size: d, dimension of the features that the loss sees.
  """
  model, loss = training.model, training.loss
  online_rng, target_rng, loss_rng = jax.random.split(rng, 3)
  params, network_state = model.online.init(online_rng, images, True)
  target_params, target_state = None, None
  if model.target:
    target_params, target_state = model.target.init(target_rng, images, True)
  loss_params = loss.init(loss_rng, feature_size)
  return State(
    params=params,
    network_state=network_state,
    target_params=target_params,
    target_state=target_state,
    loss_params=loss_params,
    loss_state=loss.init_state(loss_rng, feature_size),
    opt_state=training.optimizer.init(params),
    loss_opt_state=training.loss_optimizer.init(loss_params),
    average=training.average.init(params),
  )


def train_step(
  training: Training,
  state: State,
  batch: dict[str, chex.Array],
  rng: chex.PRNGKey,
  seed_key: chex.PRNGKey,
  global_step: chex.Array,
) -> tuple[State, Scalars]:
  """One update of everything in the state, on one of the devices of a mapped function.

  Args:
    training: what the step is made of.
    state: the same on every device.
    batch: 'view1', …, 'viewV' [b, H, W, C] uint8, 'label' [b], -1 for none, 'index'
      [b], place in the global stream, and 'metadata' [b] or [b, k] if the loss has a
      term of it; this device's share of the batch.
    rng: a JAX key for the loss, the same on every device.
    seed_key: the key that, with their index, decides how images look.
    global_step: updates so far.

  Returns:
    The next state and the scalars of this step; the same on every device.
  """
  # Augment the views, run both networks, and differentiate the loss.
  found = gradients(training, state, batch, rng, seed_key)

  # Update the online network and the parameters of the loss, each by its optimiser.
  params, opt_state = _updated(
    training.optimizer, found.params, state.opt_state, state.params
  )
  loss_params, loss_opt_state = _updated(
    training.loss_optimizer, found.loss_params, state.loss_opt_state, state.loss_params
  )

  # Move the target network towards the online one; it has no predictor or classifier.
  scalars, target_params = found.scalars, None
  if state.target_params is not None:
    decay = training.target_decay(global_step)
    followed = {name: params[name] for name in state.target_params}
    target_params = optim.ema_update(state.target_params, followed, decay)
    scalars |= {'target_decay': decay}

  # Average the parameters for evaluation.
  _, average = training.average.update(params, state.average)

  scalars |= {
    'learning_rate': training.schedule(global_step),
    'gradient_norm': optax.tree.norm(found.params),
  }
  return State(
    params=params,
    network_state=found.network_state,
    target_params=target_params,
    target_state=found.target_state,
    loss_params=loss_params,
    loss_state=found.loss_state,
    opt_state=opt_state,
    loss_opt_state=loss_opt_state,
    average=average,
  ), scalars


def _updated(
  optimizer: optax.GradientTransformation,
  gradients: chex.ArrayTree,
  opt_state: optax.OptState,
  params: chex.ArrayTree,
) -> tuple[chex.ArrayTree, optax.OptState]:
  updates, opt_state = optimizer.update(gradients, opt_state, params)
  return optax.apply_updates(params, updates), opt_state


def gradients(
  training: Training,
  state: State,
  batch: dict[str, chex.Array],
  rng: chex.PRNGKey,
  seed_key: chex.PRNGKey,
) -> Gradients:
  """Gradients of the loss of the global batch; arguments as for `train_step`."""
  model = training.model

  # Augmentation and networks take a microbatch after another; with one, that is all.
  views = microbatches.apply(
    lambda part: augment_views(training, seed_key, part),
    microbatches.split(batch, training.num_microbatches),
  )
  online, network_state, pullback = microbatches.features_and_pullback(
    model.online_features, state.params, state.network_state, views
  )
  target, target_state = None, None
  if model.target:
    target, target_state = microbatches.features(
      model.target_features,
      state.target_params,
      state.target_state,
      views[: training.num_global_views],
    )

  # The loss is that of the whole batch: its gradient by the features comes first, then
  # the pullback carries it to the parameters.
  def of_features(online, loss_params):
    return total_loss(
      training, online, loss_params, state.loss_state, target, batch, rng
    )

  grad_fn = jax.grad(of_features, argnums=(0, 1), has_aux=True)
  (by_features, by_loss_params), (scalars, loss_state) = grad_fn(
    online, state.loss_params
  )
  by_params = pullback(by_features)
  # Each device has the gradient of its share; the loss is that of all devices.
  by_params, by_loss_params, scalars = parallel.pmean(
    (by_params, by_loss_params, scalars)
  )
  return Gradients(
    by_params, by_loss_params, network_state, target_state, loss_state, scalars
  )


def augment_views(
  training: Training, seed_key: chex.PRNGKey, batch: dict[str, chex.Array]
) -> list[chex.Array]:
  """Views [b, H, W, C] as the networks see them.

  The key of a view is a function of the place of its image in the global stream, so
  that images look the same on any number of devices.
  """
  return [
    policy(augment.keys(seed_key, batch['index'], view), batch[f'view{view + 1}'])
    for view, policy in enumerate(training.policies)
  ]


def total_loss(
  training: Training,
  online: OnlineFeatures,
  loss_params: chex.ArrayTree,
  loss_state: chex.ArrayTree,
  target: list[chex.Array] | None,
  batch: dict[str, chex.Array],
  rng: chex.PRNGKey,
) -> tuple[chex.Array, tuple[Scalars, chex.ArrayTree]]:
  """The loss with its terms and, on stopped gradients, that of the classifier.

  Args:
    training: what the step is made of.
    online: of the online network.
    loss_params: of the loss.
    loss_state: of the loss.
    target: [b, d] of the global views by the target network, or None.
    batch: for its labels and metadata.
    rng: a JAX key, the same on every device.

  Returns:
    The sum of both losses; scalars, and the new state of the loss.
  """
  loss, axis_name = training.loss, parallel.AXIS_NAME
  raw = losses.Projections(
    jnp.stack(online.views), None if target is None else jnp.stack(target)
  )
  # A target of None is an empty subtree here, and stays None.
  unit_norm = jax.tree.map(losses.l2_normalize, raw)
  projections = unit_norm if loss.unit_norm else raw
  value, scalars = loss(loss_params, rng, projections, axis_name, loss_state)
  if training.dependence:
    is_embedding = training.dependence.features == 'embedding'
    features = online.embeddings if is_embedding else list(projections.online)
    hsic_za = training.dependence(features, batch['metadata'], axis_name)
    scalars |= {'hsic_za': hsic_za}
    value += training.dependence.weight * hsic_za
  if training.with_instruments:
    # Of unit norm even where the loss takes raw features: losses stay comparable.
    scalars |= dependence.measure(
      jax.lax.stop_gradient(unit_norm.views), loss.kernel_of(loss_params), axis_name
    )
  scalars |= {
    'projection_std': diagnostics.feature_std(
      jax.lax.stop_gradient(online.projection), axis_name
    ),
  }
  if online.logits is not None:  # Some image has a label.
    classifier_loss, top1 = classify(online.logits, batch['label'])
    scalars |= {'classifier_loss': classifier_loss, 'classifier_top1': top1}
    # Its gradient stops at the embedding, so the sum trains both independently.
    value += classifier_loss
  # The loss reads the old state: a batch meets earlier batches in a queue, not itself.
  new_state = loss.next_state(loss_state, jax.lax.stop_gradient(projections), axis_name)
  return value, (scalars, new_state)


def classify(logits: chex.Array, labels: chex.Array) -> tuple[chex.Array, chex.Array]:
  """Cross-entropy and top-1 accuracy; images without label, -1, add zero to both.

  Args:
    logits: [b, num_classes].
    labels: [b].
  """
  logits = logits.astype(jnp.float32)
  # −1 is no index, so 0 stands in for it, and `where` drops that loss.
  losses_of_all = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  loss = jnp.mean(jnp.where(labels >= 0, losses_of_all, 0.0))
  return loss, jnp.mean(logits.argmax(axis=1) == labels)


def scalar_names(
  training: Training, *, batch_size: int, feature_size: int, num_classes: int
) -> set[str]:
  """Names of the scalars of `train_step`, which are known without running a network.

  Args:
    training: what the step is made of.
    batch_size: images on a device.
    feature_size: d, dimension of the features that the loss sees.
    num_classes: of the monitoring classifier; 0: there is none.
  """

  def of_loss(features, rng):
    logits = jnp.zeros((batch_size, num_classes)) if num_classes else None
    of_views = [features] * len(training.policies)
    online = OnlineFeatures(of_views, features, logits, of_views)
    target = [features] * training.num_global_views if training.model.target else None
    loss_params = training.loss.init(rng, feature_size)
    loss_state = training.loss.init_state(rng, feature_size)
    zeros = jnp.zeros(batch_size, jnp.int32)
    batch = {'label': zeros, 'metadata': zeros}
    return total_loss(training, online, loss_params, loss_state, target, batch, rng)

  shape = len(parallel.local_devices()), batch_size, feature_size
  features = jax.ShapeDtypeStruct(shape, jnp.float32)
  mapped = parallel.pmap(of_loss, in_axes=(0, None))
  # Traced under `pmap`, because the loss names the mapped axis.
  _, (scalars, _) = jax.eval_shape(mapped, features, jax.random.key(0))
  of_update = {'learning_rate', 'gradient_norm'}
  if training.model.target:
    of_update.add('target_decay')
  return scalars.keys() | of_update
