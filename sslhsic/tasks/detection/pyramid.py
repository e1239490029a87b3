"""A feature pyramid on the stages of the encoder.

Lin et al. (2017), https://arxiv.org/abs/1612.03144; initial values as in torchvision.
"""

from collections.abc import Sequence

import haiku as hk
import jax

from sslhsic.networks import layers

# A uniform law of variance 1 / (3 · inputs of a unit), times 3.
XAVIER = hk.initializers.VarianceScaling(1.0, 'fan_in', 'uniform')


class FeaturePyramid(hk.Module):
  """As many maps as there are stages, coarse ones added to fine ones, and one more."""

  def __init__(self, channels: int, name: str = 'pyramid'):
    """Sets the channels of all maps."""
    super().__init__(name=name)
    self.channels = channels

  def __call__(
    self, stages: Sequence[jax.Array], content: Sequence[jax.Array]
  ) -> tuple[jax.Array, ...]:
    """Maps stages [n, h_i, w_i, c_i], each half as high and wide as the one before.

    Args:
      stages: of the encoder.
      content: rows and columns of each stage that are not padding, [n, 2].

    Returns:
      [n, h_i, w_i, channels] each, and of the last one every second pixel; 0 outside of
      the content.
    """
    maps, above = [], None
    # From the coarsest stage to the finest; `above` is the merged map so far.
    for i, stage in reversed(list(enumerate(stages))):
      lateral = hk.Conv2D(self.channels, 1, w_init=XAVIER, name=f'lateral_{i}')(stage)
      above = lateral if above is None else lateral + _doubled(above, lateral.shape)
      # The 3×3 convolution would carry values of the padding into the content.
      above = layers.without_padding(above, content[i])
      output = hk.Conv2D(self.channels, 3, w_init=XAVIER, name=f'output_{i}')
      maps.insert(0, layers.without_padding(output(above), content[i]))
    # Subsampling is what torchvision's max pooling of size 1 and stride 2 does.
    return (*maps, maps[-1][:, ::2, ::2])


def _doubled(x: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Repeats every pixel of [n, h, w, c], to a height and width of 2h or 2h − 1."""
  x = x.repeat(2, axis=1).repeat(2, axis=2)
  return x[:, : shape[1], : shape[2]]
