"""Multilayer perceptron on top of the encoder: projector and predictor."""

import chex
import haiku as hk
import jax

from sslhsic.networks import layers


class MLP(hk.Module):
  """Linear layer, batch norm, ReLU, and a linear layer without bias or batch norm.

  Projector and predictor of BYOL (https://arxiv.org/abs/2006.07733, section 3.3) and
  SSL-HSIC (https://arxiv.org/abs/2106.08320), there 4096 wide inside and 256 outside.
  """

  def __init__(
    self,
    *,
    hidden_size: int,
    output_size: int,
    axis_name: str | None = None,
    name: str = 'mlp',
  ):
    """Sets the sizes of both layers, and the devices that share batch statistics."""
    super().__init__(name=name)
    self.hidden_size = hidden_size
    self.output_size = output_size
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
    """Maps [n, d] to [n, output_size]."""
    chex.assert_rank(x, 2)
    # With a bias, as in BYOL's code, though the batch norm after it cancels the bias.
    x = hk.Linear(self.hidden_size, name='linear_0')(x)
    x = layers.batch_norm(
      x, is_training=is_training, axis_name=self.axis_name, name='batchnorm'
    )
    x = jax.nn.relu(x)
    return hk.Linear(self.output_size, with_bias=False, name='linear_1')(x)
