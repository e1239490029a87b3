"""The gradient of a loss of the whole batch, by a network that sees parts of it.

A loss of the whole batch is no sum over its parts: gradients of the parts' losses,
accumulated, are those of another loss. But the gradient by the network's parameters
needs the rest of the batch only through the gradient by the features:

  1. the features z_j = f_w(x_j) of all parts j, of which nothing else is kept;
  2. the loss L(z_1, …, z_m) and its gradients g_j = ∂L/∂z_j;
  3. Σ_j (∂f_w(x_j)/∂w)ᵀ g_j, part by part, each from a forward pass of its own.

It is exact, at the memory of one part and the price of a second forward pass (Gao et
al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983). With one part there is no second pass: it is plain back-propagation.
Where the loss is a mean over the images, g_j is a constant, step 1 drops out, and this
is the usual accumulation of gradients: see `gradients`.

Microbatch j of m holds the images of the rows r ≡ j (mod m) of the batch. So it is the
same images whether a device has the whole batch or each of several has a share.
"""

from collections.abc import Callable
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

# (parameters, state, microbatch) -> (features, new state); the features must not
# depend on what changes in the state: on batch statistics in training.
Forward = Callable[
  [chex.ArrayTree, chex.ArrayTree, chex.ArrayTree],
  tuple[chex.ArrayTree, chex.ArrayTree],
]
# Features of the whole batch -> (its loss, scalars to log).
Loss = Callable[[chex.ArrayTree], tuple[chex.Array, dict[str, chex.Array]]]


def check(batch_size: int, num_microbatches: int) -> None:
  """Checks that a device's share of the batch divides into microbatches.

  Args:
    batch_size: images on a device.
    num_microbatches: m.

  Raises:
    ValueError: it does not.
  """
  if num_microbatches < 1 or batch_size % num_microbatches:
    possible = [m for m in range(1, batch_size + 1) if batch_size % m == 0]
    raise ValueError(
      f'{batch_size} images per device do not divide into {num_microbatches} '
      f'microbatches; use one of {", ".join(map(str, possible))}, or another batch size'
    )


def split(batch: chex.ArrayTree, num_microbatches: int) -> chex.ArrayTree:
  """Microbatches of a device's batch: [b, ...] -> [m, b/m, ...]."""
  part = lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1)
  return jax.tree.map(part, batch)


def join(parts: chex.ArrayTree) -> chex.ArrayTree:
  """Undoes `split`: [m, b/m, ...] -> [b, ...]."""
  whole = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
  return jax.tree.map(whole, parts)


def apply(function: Callable[[Any], Any], parts: chex.ArrayTree) -> chex.ArrayTree:
  """Applies a function to one microbatch after another; [m, ...] -> [m, ...]."""
  return _scan(lambda _, part: (None, function(part)), None, parts)[1]


def features(
  forward: Forward, params: chex.ArrayTree, state: chex.ArrayTree, parts: chex.ArrayTree
) -> tuple[chex.ArrayTree, chex.ArrayTree]:
  """Features of the batch, without gradient.

  Args:
    forward: of one microbatch.
    params: of the network.
    state: of the network; it goes through the microbatches in their order.
    parts: the microbatches, [m, b/m, ...].

  Returns:
    Features [b, ...], and the state after the last microbatch.
  """

  def step(state, part):
    output, state = forward(params, state, part)
    return state, output

  state, outputs = _scan(step, state, parts)
  return jax.lax.stop_gradient(join(outputs)), state


def features_and_pullback(
  forward: Forward, params: chex.ArrayTree, state: chex.ArrayTree, parts: chex.ArrayTree
) -> tuple[chex.ArrayTree, chex.ArrayTree, Callable[[chex.ArrayTree], chex.ArrayTree]]:
  """Features of the batch, and what carries a gradient from them to the parameters.

  Arguments and first two results are those of `features`; the third is a function from
  the gradient by the features, [b, ...], to that by `params`, in their types.
  """

  if _count(parts) == 1:
    # The pullback keeps the activations of the one part.
    return _part_and_pullback(forward, params, state, join(parts))

  def pullback(gradient):
    return _accumulate(forward, params, state, parts, gradient)[0]

  return *features(forward, params, state, parts), pullback


def gradients(
  forward: Forward,
  loss: Loss,
  params: chex.ArrayTree,
  state: chex.ArrayTree,
  parts: chex.ArrayTree,
) -> tuple[chex.ArrayTree, chex.ArrayTree, dict[str, chex.Array]]:
  """The gradient of a loss of the whole batch by the parameters of the network.

  What the first pass computes serves the gradient by the features alone, so that XLA
  leaves out all that this gradient does not depend on. For features that are losses of
  images, of which the loss is a mean, nothing is left of it; for a mean with weights,
  what the weights depend on.

  Args:
    forward: of one microbatch.
    loss: of the features of the batch.
    params: of the network.
    state: of the network; it goes through the microbatches in their order.
    parts: the microbatches, [m, b/m, ...].

  Returns:
    The gradient, the state after the last microbatch, and the scalars.
  """
  gradient_and_scalars = jax.grad(loss, has_aux=True)
  if _count(parts) == 1:
    found, after, pullback = _part_and_pullback(forward, params, state, join(parts))
    gradient, scalars = gradient_and_scalars(found)
    return pullback(gradient), after, scalars
  gradient, _ = gradient_and_scalars(features(forward, params, state, parts)[0])
  by_params, after, found = _accumulate(forward, params, state, parts, gradient)
  # Of the second pass: with scalars of the first, XLA would keep all of it.
  return by_params, after, loss(found)[1]


def _part_and_pullback(
  forward: Forward, params: hk.Params, state: hk.State, part: chex.ArrayTree
) -> tuple[chex.ArrayTree, hk.State, Callable[[chex.ArrayTree], hk.Params]]:
  """Features and state of one microbatch, and what carries a gradient to `params`."""
  found, pullback, after = jax.vjp(
    lambda params: forward(params, state, part), params, has_aux=True
  )
  return found, after, lambda gradient: pullback(gradient)[0]


def _accumulate(
  forward: Forward,
  params: hk.Params,
  state: hk.State,
  parts: chex.ArrayTree,
  gradient: chex.ArrayTree,
) -> tuple[hk.Params, hk.State, chex.ArrayTree]:
  """The sum of the parts' gradients, the last state, and the features [b, ...]."""

  def step(carry, part_and_gradient):
    total, state = carry
    part, gradient_of_part = part_and_gradient
    found, state, pullback = _part_and_pullback(forward, params, state, part)
    total = jax.tree.map(jnp.add, total, pullback(gradient_of_part))
    return (total, state), found

  start = jax.tree.map(jnp.zeros_like, params), state
  (total, state), found = _scan(step, start, (parts, split(gradient, _count(parts))))
  return total, state, join(found)


def _count(parts: chex.ArrayTree) -> int:
  return len(jax.tree.leaves(parts)[0])


def _scan(step, carry, parts):
  """`jax.lax.scan`, or a plain call where there is one part."""
  if _count(parts) > 1:
    return jax.lax.scan(step, carry, parts)
  # Without a loop, XLA compiles the plain step of a whole batch.
  carry, output = step(carry, jax.tree.map(lambda x: x[0], parts))
  return carry, jax.tree.map(lambda x: x[None], output)
