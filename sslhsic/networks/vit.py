"""Vision Transformer, with the parameters of timm's and Hugging Face's.

Dosovitskiy et al. (2021), https://arxiv.org/abs/2010.11929: an image is a sequence of
square patches. Normalisation comes before attention and perceptron, and once more at
the end. There are no batch statistics and no dropout, so that training and evaluation
compute the same.
"""

import math

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic.networks import encoder

POSITIONS = ('learned', 'sincos')
POOLINGS = ('class', 'mean')

_INIT = hk.initializers.TruncatedNormal(0.02)


class ViT(encoder.Encoder):
  """Vision Transformer without classifier; computes in the type of its images.

  The one stage is the grid of patch tokens after the last normalisation. Images of any
  size run whose sides are multiples of the patch size: fixed positions are computed for
  their grid, learned ones are resized to it (bicubic).

  Args:
    patch_size: side of a patch, in pixels.
    width: dimension of the tokens; with fixed positions a multiple of 4.
    depth: number of blocks.
    num_heads: heads of attention; a divisor of the width.
    mlp_ratio: width of the perceptrons' hidden layer, in widths of the network.
    positions: 'learned', or 'sincos', fixed sines and cosines of row and column, as
      in MoCo v3 (https://arxiv.org/abs/2104.02057).
    image_size: side of the images, in pixels, on whose grid positions are learned.
    pooling: the embedding: 'class', a token of its own, whose value includes its
      position; or 'mean', the mean of the patch tokens, and no class token.
    num_registers: further tokens that nothing is read from (Darcet et al. 2024,
      https://arxiv.org/abs/2309.16588).
    freeze_patch_embedding: whether the embedding of the patches gets no gradient, which
      stabilises training in MoCo v3; exclude it from the weight decay as well.
    axis_name: ignored, there are no batch statistics.
    name: of the module.

  Raises:
    ValueError: sizes do not divide, or positions or pooling are unknown.
  """

  norm_name = 'layernorm'
  has_batch_statistics = False
  unseen_options = ('num_heads',)

  def __init__(
    self,
    *,
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    mlp_ratio: int = 4,
    positions: str = 'learned',
    image_size: int = 224,
    pooling: str = 'class',
    num_registers: int = 0,
    freeze_patch_embedding: bool = False,
    axis_name: str | None = None,
    name: str = 'vit',
  ):
    super().__init__(name=name)
    del axis_name
    if width % num_heads:
      raise ValueError(f'a width of {width} does not divide into {num_heads} heads')
    if positions not in POSITIONS:
      raise ValueError(f'unknown positions {positions!r}; use one of {POSITIONS}')
    if positions == 'sincos' and width % 4:
      raise ValueError(f"a width of {width}; positions 'sincos' need a multiple of 4")
    if pooling not in POOLINGS:
      raise ValueError(f'unknown pooling {pooling!r}; use one of {POOLINGS}')
    if image_size % patch_size:
      raise ValueError(
        f'image_size {image_size} is not a multiple of patch_size {patch_size}'
      )
    self.patch_size = patch_size
    self.width = width
    self.depth = depth
    self.num_heads = num_heads
    self.mlp_ratio = mlp_ratio
    self.positions = positions
    self.grid_size = image_size // patch_size
    self.pooling = pooling
    self.num_registers = num_registers
    self.freeze_patch_embedding = freeze_patch_embedding
    self.stage_strides = (patch_size,)
    self.output_stride = patch_size
    self.output_offset = (patch_size - 1) / 2

  def __call__(self, images: jax.Array, *, is_training: bool) -> encoder.Features:
    """Computes the features of [n, h, w, c] images, in a floating-point type."""
    del is_training
    chex.assert_rank(images, 4)
    chex.assert_type(images, float)
    patches = self._patches(images)
    n, rows, columns, _ = patches.shape
    # Before the other tokens join: the value of a class token includes its position.
    patches = patches + self._positions(rows, columns).astype(patches.dtype)[None]
    patches = patches.reshape(n, rows * columns, self.width)
    others = self._class_and_registers(n, patches.dtype)
    # [n, others + rows·columns, width], the class token first.
    x = jnp.concatenate([*others, patches], axis=1)
    for i in range(self.depth):
      x = Block(self.num_heads, self.mlp_ratio, name=f'block_{i}')(x)
    x = layer_norm(x, name='layernorm')
    patches = x[:, sum(token.shape[1] for token in others) :]
    embedding = (
      x[:, 0].astype(jnp.float32)
      if self.pooling == 'class'
      else jnp.mean(patches, axis=1, dtype=jnp.float32)
    )
    stage = patches.reshape(n, rows, columns, self.width)
    return encoder.Features((stage,), embedding)

  @hk.transparent
  def _patches(self, images: jax.Array) -> jax.Array:
    """Embedded patches, [n, rows, columns, width]."""
    _, height, width, _ = images.shape
    if height % self.patch_size or width % self.patch_size:
      raise ValueError(
        f'images of {height}×{width} px do not divide into patches of '
        f'{self.patch_size} px; use another size of crop, or another patch_size'
      )
    layer = hk.Conv2D(
      self.width,
      self.patch_size,
      stride=self.patch_size,
      padding='VALID',
      w_init=_INIT,
      name='patch_embedding',
    )
    embedded = layer(images)
    # Nothing before this layer is trained, so that no other gradient is lost.
    return jax.lax.stop_gradient(embedded) if self.freeze_patch_embedding else embedded

  @hk.transparent
  def _positions(self, rows: int, columns: int) -> jax.Array:
    """Embeddings of the places of a grid, [rows, columns, width], float32."""
    if self.positions == 'sincos':
      return jnp.asarray(sincos_positions(rows, columns, self.width))
    size = self.grid_size, self.grid_size, self.width
    learned = hk.get_parameter('positions', size, jnp.float32, init=_INIT)
    if (rows, columns) == size[:2]:
      return learned
    # The resizing mixes types, which strict promotion forbids.
    with jax.numpy_dtype_promotion('standard'):
      return jax.image.resize(learned, (rows, columns, self.width), 'bicubic')

  @hk.transparent
  def _class_and_registers(self, n: int, dtype: jnp.dtype) -> list[jax.Array]:
    """Tokens before those of the patches, [n, k, width] each."""
    counts = {'class_token': int(self.pooling == 'class')}
    counts['registers'] = self.num_registers
    tokens = [
      hk.get_parameter(name, (count, self.width), jnp.float32, init=_INIT)
      for name, count in counts.items()
      if count
    ]
    return [jnp.broadcast_to(x.astype(dtype)[None], (n, *x.shape)) for x in tokens]


class Block(hk.Module):
  """x ← x + attention(norm(x)); x ← x + perceptron(norm(x))."""

  def __init__(self, num_heads: int, mlp_ratio: int, name: str):
    """Sets the sizes."""
    super().__init__(name=name)
    self.num_heads = num_heads
    self.mlp_ratio = mlp_ratio

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps tokens [n, k, c] to tokens."""
    n, count, width = x.shape
    normed = layer_norm(x, name='layernorm_0')
    qkv = _linear(normed, 3 * width, name='qkv')
    # [n, k, 3·c] -> three of [n, k, heads, c/heads].
    query, key, value = jnp.moveaxis(
      qkv.reshape(n, count, 3, self.num_heads, width // self.num_heads), 2, 0
    )
    # Its softmax is float32 in any type, a promotion that strict rules forbid.
    with jax.numpy_dtype_promotion('standard'):
      attended = jax.nn.dot_product_attention(query, key, value)
    x = x + _linear(attended.reshape(n, count, width), width, name='projection')
    hidden = _linear(
      layer_norm(x, name='layernorm_1'), self.mlp_ratio * width, name='linear_0'
    )
    # The exact GELU, as in timm; JAX approximates it by default.
    return x + _linear(jax.nn.gelu(hidden, approximate=False), width, name='linear_1')


def layer_norm(x: jax.Array, *, name: str) -> jax.Array:
  """Normalises the last axis, in float32, with scale and offset."""
  # ε of timm; Haiku's own is 1e-5.
  layer = hk.LayerNorm(-1, create_scale=True, create_offset=True, eps=1e-6, name=name)
  return layer(x)


def _linear(x: jax.Array, size: int, *, name: str) -> jax.Array:
  return hk.Linear(size, w_init=_INIT, name=name)(x)


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
  """Fixed embeddings of the places of a grid.

  For row y and column x at frequencies ω_k = 10000^(−k/K), K = width/4:
  (sin ω_k y, cos ω_k y, sin ω_k x, cos ω_k x), each for all k: the row first, as
  in the code of MoCo v3.

  Returns:
    [rows, columns, width], float32.
  """
  count = width // 4
  frequencies = np.exp(-math.log(10_000) * np.arange(count) / count)
  y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing='ij')
  x, y = x[..., None] * frequencies, y[..., None] * frequencies
  waves = [np.sin(y), np.cos(y), np.sin(x), np.cos(x)]
  return np.concatenate(waves, axis=-1).astype(np.float32)


def _preset(width: int, num_heads: int, patch_size: int, **options: int | str) -> dict:
  sizes = {'width': width, 'depth': 12, 'num_heads': num_heads}
  return {**sizes, 'patch_size': patch_size, **options}


# Arguments of ViT by name: the sizes of timm, MoCo v3's networks, and a small one for
# 8×8 images on a processor.
PRESETS = {
  f'vit_{size}{patch_size}': _preset(width, num_heads, patch_size)
  for size, width, num_heads in (('ti', 192, 3), ('s', 384, 6), ('b', 768, 12))
  for patch_size in (16, 14, 8, 4)
} | {
  # ViT-S has 12 heads in MoCo v3, not 6.
  'vit_s16_moco': _preset(384, 12, 16, positions='sincos'),
  'vit_b16_moco': _preset(768, 12, 16, positions='sincos'),
  'vit_digits': {
    'patch_size': 2,
    'width': 64,
    'depth': 3,
    'num_heads': 2,
    'image_size': 8,
    'positions': 'sincos',
    'pooling': 'mean',
  },
}
