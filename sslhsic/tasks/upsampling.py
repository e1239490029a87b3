"""Bilinear interpolation of feature maps back to the pixels of the image."""

import chex
import jax
import jax.numpy as jnp


def bilinear(
  x: chex.Array, stride: int, size: tuple[int, int], *, offset: float = 0.0
) -> chex.Array:
  """Values of a feature map [n, h, w, c] at every pixel of the image, [n, H, W, c].

  With padding alike on both sides, cell i of a map of stride s looks at the image
  around pixel s·i. So that is where its value belongs, and beyond the last cell its
  value stays. (Stretching the map to the image would move it by up to half a stride.)
  A patch of s pixels is centred on pixel s·i + (s − 1)/2, where stretching is right.

  Args:
    x: [n, h, w, c], float32.
    stride: pixels per cell.
    size: H and W.
    offset: the pixel that the first cell is centred on, see `networks.Encoder`.
  """
  chex.assert_rank(x, 4)
  rows, columns = (
    _interpolation(pixels, stride, cells, offset)
    for pixels, cells in zip(size, x.shape[1:3], strict=True)
  )
  # Products with matrices, for the matrix units.
  x = jnp.einsum('Hh,nhwc->nHwc', rows, x, precision='highest')
  return jnp.einsum('Ww,nHwc->nHWc', columns, x, precision='highest')


def _interpolation(pixels: int, stride: int, cells: int, offset: float) -> jax.Array:
  """[pixels, cells], the weight of every cell at every pixel."""
  # Pixels in units of cells; pixels beyond the first or last cell keep its value.
  position = (jnp.arange(pixels, dtype=jnp.float32) - offset) / stride
  position = jnp.clip(position, 0, cells - 1)
  distance = jnp.abs(position[:, None] - jnp.arange(cells, dtype=jnp.float32)[None, :])
  # Linear interpolation: the weight falls from 1 at the cell to 0 one cell away.
  return jnp.maximum(1 - distance, 0)
