"""The contract of an encoder: images to feature maps and an embedding."""

from typing import ClassVar, NamedTuple

import haiku as hk
import jax


class Features(NamedTuple):
  """Features of n images.

  Attributes:
    stages: feature maps from fine to coarse, [n, h_i, w_i, c_i] each. A convolutional
      network has one for every group; a transformer may give its patch tokens as one.
    embedding: [n, c], float32: a mean over positions, or a class token.
  """

  stages: tuple[jax.Array, ...]
  embedding: jax.Array


class Encoder(hk.Module):
  """A network that turns images into features.

  The constructor takes keyword arguments only: the options of the network, `name`, and
  `axis_name`, the mapped axis over which batch statistics are synchronised, or None. An
  encoder with batch statistics also has the option `batch_norm_decay`, of their moving
  averages. The network draws no random numbers but its initial parameters.

  Attributes:
    norm_name: part of the names of all its normalisation modules, and of no others.
    unseen_options: options that change what it computes and the shape of no parameter,
      such as the number of heads of attention: weights fit either way.
    has_batch_statistics: whether it normalises by statistics of the batch, and keeps
      their averages as Haiku state; layer norm does not.
    stage_strides: pixels of the image per pixel of each stage, in both directions.
    output_stride: pixels of the image per pixel of the last stage.
    output_offset: pixel of the image that the first pixel of the last stage is centred
      on: 0 if all layers pad alike on both sides, (p − 1)/2 for patches of p pixels.
  """

  norm_name: ClassVar[str]
  has_batch_statistics: ClassVar[bool]
  unseen_options: ClassVar[tuple[str, ...]] = ()
  stage_strides: tuple[int, ...]
  output_stride: int
  output_offset: float = 0.0

  @classmethod
  def is_normalisation(cls, module: str) -> bool:
    """Whether a module of the encoder, by its full name, is a normalisation."""
    return cls.norm_name in module

  def __call__(
    self, images: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> Features:
    """Computes the features of [n, h, w, c] images, in a floating-point type.

    Args:
      images: normalised; the network computes in their type.
      is_training: whether to normalise by statistics of this batch, where the encoder
        has any, and to update their averages.
      content: [n, 2] integers, rows and columns of each image that are not padding,
        from the top left; None: all. Features of the content, batch statistics and
        embedding are as without padding, whatever its pixels and its size. Only
        detectors pass it; an encoder that no detector uses may leave it out.
    """
    raise NotImplementedError


class SplitEncoder(Encoder):
  """An encoder that also runs in two parts, for a detector that pools regions between.

  `last_group` of `trunk` is the last stage; both use the parameters of `__call__`.

  Attributes:
    last_group_name: part of the names of all modules of the last group, and of no
      others.
  """

  last_group_name: str

  def trunk(
    self, images: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> jax.Array:
    """Computes the input of the last group, [n, h, w, c], as `__call__` does."""
    raise NotImplementedError

  def last_group(
    self, x: jax.Array, *, is_training: bool, content: jax.Array | None = None
  ) -> jax.Array:
    """Applies the last group to maps [n, h, w, c] of any size.

    Args:
      x: maps.
      is_training: as for `__call__`.
      content: rows and columns of each map that count, [n, 2]; 0 for a whole map that
        does not.
    """
    raise NotImplementedError
