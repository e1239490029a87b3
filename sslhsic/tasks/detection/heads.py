"""What a detector puts on the features of its encoder: the heads.

Initial values are those of torchvision and Detectron2.
"""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from sslhsic.tasks.detection import pyramid

_MASK_INIT = hk.initializers.VarianceScaling(2.0, 'fan_out', 'truncated_normal')


def _normal(stddev: float) -> hk.initializers.Initializer:
  return hk.initializers.RandomNormal(stddev)


class RegionProposalHead(hk.Module):
  """A 3×3 convolution, and for each anchor an objectness and the code of a box.

  Ren et al. (2015), https://arxiv.org/abs/1506.01497, section 3.1; as wide as its input
  and the same on all levels.
  """

  def __init__(self, num_anchors: int, name: str = 'region_proposal_head'):
    """Sets the number of anchors of a position."""
    super().__init__(name=name)
    self.num_anchors = num_anchors

  def __call__(
    self, maps: Sequence[jax.Array]
  ) -> tuple[list[jax.Array], list[jax.Array]]:
    """Maps each [n, h, w, c] to logits [n, h·w·A] and codes [n, h·w·A, 4]."""
    init = {'w_init': _normal(0.01)}
    # Created once and applied to every level: the levels share their weights.
    conv = hk.Conv2D(maps[0].shape[-1], 3, **init, name='conv')
    objectness = hk.Conv2D(self.num_anchors, 1, **init, name='objectness')
    codes = hk.Conv2D(4 * self.num_anchors, 1, **init, name='codes')
    hidden = [jax.nn.relu(conv(x)) for x in maps]
    n = maps[0].shape[0]
    return (
      [objectness(x).reshape(n, -1) for x in hidden],
      [codes(x).reshape(n, -1, 4) for x in hidden],
    )


class TwoLayers(hk.Module):
  """Two linear layers with ReLU, the trunk of the box head of a feature pyramid."""

  def __init__(self, size: int, name: str = 'box_trunk'):
    """Sets the size of both layers."""
    super().__init__(name=name)
    self.size = size

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [n, P, P, c] to [n, size]."""
    x = x.reshape(len(x), -1)
    for i in range(2):
      layer = hk.Linear(self.size, w_init=pyramid.XAVIER, name=f'linear_{i}')
      x = jax.nn.relu(layer(x))
    return x


class BoxPredictor(hk.Module):
  """The class of a region, and the code of a box for each class."""

  def __init__(self, num_classes: int, name: str = 'box_predictor'):
    """Sets C, without background."""
    super().__init__(name=name)
    self.num_classes = num_classes

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps [n, c] to logits [n, C + 1], background last, and codes [n, C, 4]."""
    classes = hk.Linear(self.num_classes + 1, w_init=_normal(0.01), name='classes')
    codes = hk.Linear(4 * self.num_classes, w_init=_normal(0.001), name='codes')
    return classes(x), codes(x).reshape(len(x), self.num_classes, 4)


class MaskHead(hk.Module):
  """Four 3×3 convolutions, one that doubles the resolution, and a mask for each class.

  He et al. (2017), https://arxiv.org/abs/1703.06870, figure 4, right.
  """

  def __init__(self, num_classes: int, channels: int, name: str = 'mask_head'):
    """Sets C, and the channels of all convolutions."""
    super().__init__(name=name)
    self.num_classes = num_classes
    self.channels = channels

  def __call__(self, x: jax.Array, classes: jax.Array) -> jax.Array:
    """Maps [n, P, P, c] and classes [n] to the logits of their masks, [n, 2P, 2P]."""
    for i in range(4):
      x = hk.Conv2D(self.channels, 3, w_init=_MASK_INIT, name=f'conv_{i}')(x)
      x = jax.nn.relu(x)
    doubled = hk.Conv2DTranspose(
      self.channels, 2, stride=2, padding='VALID', w_init=_MASK_INIT, name='doubled'
    )
    masks = hk.Conv2D(self.num_classes, 1, w_init=_normal(0.001), name='masks')
    logits = masks(jax.nn.relu(doubled(x)))
    # One mask for each class, so that classes do not compete for pixels.
    of_class = jnp.take_along_axis(logits, classes[:, None, None, None], axis=-1)
    return of_class[..., 0]
