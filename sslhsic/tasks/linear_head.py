"""A linear layer on the features of every cell, after batch norm.

The head of DINOv2's linear segmentation (Oquab et al. 2023,
https://arxiv.org/abs/2304.07193), which shows what the features hold by themselves.
"""

import haiku as hk
import jax

from sslhsic.networks import layers

# In protocols of results.
DESCRIPTION = 'batch norm and a linear layer on the last feature map'


class LinearHead(hk.Module):
  """Batch norm over the cells of all images, and a linear layer."""

  def __init__(
    self, output_size: int, *, axis_name: str | None, name: str = 'linear_head'
  ):
    """Sets the number of outputs, and the devices that share batch statistics."""
    super().__init__(name=name)
    self.output_size = output_size
    self.axis_name = axis_name

  def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
    """Maps [n, h, w, c] to [n, h, w, output_size]."""
    x = layers.batch_norm(
      x, is_training=is_training, axis_name=self.axis_name, name='batchnorm'
    )
    return hk.Linear(self.output_size, name='linear')(x)
