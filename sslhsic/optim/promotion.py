"""Optax where JAX promotes types strictly."""

import jax
import optax


def promoting(
  transformation: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Lets Optax raise floats to integer powers where JAX promotes types strictly."""

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    with jax.numpy_dtype_promotion('standard'):
      return transformation.update(updates, state, params)

  return optax.GradientTransformation(transformation.init, update)
