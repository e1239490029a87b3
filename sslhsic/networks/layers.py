"""Convolution, batch norm and pooling, padded and normalised as in PyTorch."""

import functools
import math
from collections.abc import Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import collectives


def conv2d(
  x: jax.Array,
  channels: int,
  kernel_size: int,
  *,
  stride: int = 1,
  dilation: int = 1,
  name: str,
) -> jax.Array:
  """Convolves [n, h, w, c] without bias, padded alike on both sides as in PyTorch."""
  return _Conv2D(channels, kernel_size, stride, dilation, name=name)(x)


class _Conv2D(hk.Module):
  """`hk.Conv2D`, with its parameters, which is fast on maps of a few pixels too."""

  def __init__(
    self, channels: int, kernel_size: int, stride: int, dilation: int, name: str
  ):
    super().__init__(name=name)
    self.channels = channels
    self.kernel_size = kernel_size
    self.stride = stride
    self.dilation = dilation

  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.channels)
    init = hk.initializers.TruncatedNormal(math.prod(shape[:3]) ** -0.5)
    kernel = hk.get_parameter('w', shape, x.dtype, init)
    outputs = [
      _taps(side, self.kernel_size, self.stride, self.dilation).shape[1]
      for side in x.shape[1:3]
    ]
    convolve = _convolve_to_few if _are_few(outputs, kernel) else _slid
    return convolve(x, kernel, self.stride, self.dilation)


def _are_few(sides: Sequence[int], kernel: jax.Array) -> bool:
  """Whether a kernel has more positions than maps of these sides.

  Then XLA exchanges the two, and on a CPU is up to 50 times as slow as one matrix
  product: in the convolution where its input is so small, and in the gradient by the
  input where its output is.
  """
  return math.prod(sides) < math.prod(kernel.shape[:2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_to_few(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """As `_slid`; for maps of a few positions."""
  slid, multiplied = (
    functools.partial(f, stride=stride, dilation=dilation) for f in (_slid, _multiplied)
  )
  if not _are_few(x.shape[1:3], kernel):
    return slid(x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=multiplied, default=slid)


def _to_few_forward(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _convolve_to_few(x, kernel, stride, dilation), (x, kernel)


def _to_few_gradient(
  stride: int, dilation: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  def slid(x, kernel, gradient):
    return jax.vjp(lambda *of: _slid(*of, stride, dilation), x, kernel)[1](gradient)

  def multiplied(x, kernel, gradient):
    pull = jax.vjp(lambda *of: _multiplied(*of, stride, dilation), x, kernel)[1]
    of_x, of_kernel = pull(gradient)
    if not _are_few(x.shape[1:3], kernel):
      of_kernel = slid(x, kernel, gradient)[1]
    return of_x, of_kernel

  # Derived, `platform_dependent` would keep what each of the two needs.
  return jax.lax.platform_dependent(*kept, gradient, cpu=multiplied, default=slid)


_convolve_to_few.defvjp(_to_few_forward, _to_few_gradient)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _slid(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """Convolves maps [n, h, w, c] with a kernel [k, k, c, d]."""
  # 'SAME' at stride 2 pads more after than before an even side, unlike PyTorch.
  padding = dilation * (len(kernel) - 1) // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _multiplied(
  x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
  """The same, by a matrix from all positions of the input to all of the output."""
  rows, columns = (_taps(side, len(kernel), stride, dilation) for side in x.shape[1:3])
  # One more tap of zeros, for positions that the kernel does not join.
  taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
  matrix = taps[rows[:, None, :, None], columns[None, :, None, :]]
  return jnp.einsum('nijc,ijabcd->nabd', x, matrix)


def _taps(side: int, kernel_size: int, stride: int, dilation: int) -> np.ndarray:
  """Which tap joins a pixel of the input and one of the output, [i, a]; k for none."""
  reach = dilation * (kernel_size - 1)
  first = np.arange(0, side + 2 * (reach // 2) - reach, stride) - reach // 2
  tap, between = np.divmod(np.arange(side)[:, None] - first, dilation)
  return np.where((between == 0) & (tap >= 0) & (tap < kernel_size), tap, kernel_size)


_EPSILON = 1e-5  # Added to variances.


class BatchNorm(hk.Module):
  """Batch norm by the statistics of all positions, or of a part of them.

  It has the parameters, state and values of `hk.BatchNorm`, and a gradient of its own,
  with the fewest passes over the maps.
  """

  def __init__(
    self,
    decay: float,
    scale_init: hk.initializers.Initializer,
    axis_name: str | None,
    name: str,
  ):
    super().__init__(name=name)
    self.scale_init = scale_init
    self.axis_name = axis_name
    self.mean_ema = _MovingAverage(decay, name='mean_ema')
    self.var_ema = _MovingAverage(decay, name='var_ema')

  def __call__(
    self, x: jax.Array, is_training: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Normalises x [..., c]; the mask [..., 1] bool is True on what counts.

    The result is 0 elsewhere. Axes of the mask may be of length 1, for all positions
    along them.
    """
    shape = (1,) * (x.ndim - 1) + x.shape[-1:]
    scale = hk.get_parameter('scale', shape, x.dtype, self.scale_init)
    offset = hk.get_parameter('offset', shape, x.dtype, jnp.zeros)
    if mask is not None:
      mask = jnp.broadcast_to(mask, (*x.shape[:-1], 1))
      x = jnp.where(mask, x, 0)
    if is_training:
      count = _count(x, mask, self.axis_name)
      normalised, mean, variance = _traced_once(
        x, scale, offset, count, _EPSILON, self.axis_name
      )
      self.mean_ema(mean)
      self.var_ema(variance)
    else:
      mean, variance = self.mean_ema.average, self.var_ema.average
      normalised = (x - mean) * (scale * jax.lax.rsqrt(variance + _EPSILON)) + offset
    return normalised if mask is None else jnp.where(mask, normalised, 0)


class _MovingAverage(hk.ExponentialMovingAverage):
  """That of Haiku, which is traced once for all layers of a shape."""

  def __call__(self, value: jax.Array) -> None:
    """Adds a value."""
    hidden = hk.get_state('hidden', value.shape, value.dtype, jnp.zeros)
    counter = hk.get_state('counter', (), jnp.int32, jnp.zeros)
    updated = _moved(hidden, counter, value, self.decay)
    for name, new in zip(('hidden', 'counter', 'average'), updated, strict=True):
      hk.set_state(name, new)


@jax.jit
def _moved(
  hidden: jax.Array, counter: jax.Array, value: jax.Array, decay: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Sum and number of values with one more of them, and their average."""
  kept = jnp.asarray(decay, value.dtype)
  hidden, counter = hidden * kept + value * (1 - kept), counter + 1
  return hidden, counter, hidden / (1 - jax.lax.pow(kept, counter))


def _count(x: jax.Array, mask: jax.Array | None, axis_name: str | None) -> jax.Array:
  """Positions on all devices that count; at least 1, as a batch may be all padding."""
  if mask is None:
    positions = x.size // x.shape[-1]
    count = collectives.global_batch_size(positions, axis_name)
    return jnp.asarray(count, x.dtype)
  return jnp.maximum(collectives.global_sum(mask.sum(dtype=x.dtype), axis_name), 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise(
  x: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  count: jax.Array,
  epsilon: float,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalised x, and mean and variance [1, ..., c] of its positions on all devices.

  x is 0 on positions that do not count; those that do are `count`.
  """
  return _normalise_forward(x, scale, offset, count, epsilon, axis_name)[0]


def _normalise_forward(
  x: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  count: jax.Array,
  epsilon: float,
  axis_name: str | None,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
  sums = collectives.global_sum((_sum(x), _sum(jnp.square(x))), axis_name)
  mean, mean_square = (of_channel / count for of_channel in sums)
  # Of equal values it would be rounded to below 0, and the root to NaN.
  variance = jnp.maximum(mean_square - jnp.square(mean), 0)
  root = jax.lax.rsqrt(variance + epsilon)
  normalised = (x - mean) * (scale * root) + offset
  return (normalised, mean, variance), (x, scale, count, mean, root)


def _normalise_gradient(
  epsilon: float,
  axis_name: str | None,
  kept: tuple[jax.Array, ...],
  gradients: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, ...]:
  del epsilon  # It is in the root.
  x, scale, count, mean, root = kept
  of_normalised, *_ = gradients  # The statistics go to moving averages alone.
  centred = x - mean
  of_offset, of_product = _sum(of_normalised), _sum(of_normalised * centred)
  sums = collectives.global_sum((of_offset, of_product), axis_name)
  shift, slope = (of_channel / count for of_channel in sums)
  of_centred = of_normalised - shift - centred * (jnp.square(root) * slope)
  return scale * root * of_centred, of_product * root, of_offset, jnp.zeros_like(count)


_normalise.defvjp(_normalise_forward, _normalise_gradient)
# Traced and derived once for all layers of a shape, which takes most of their time; the
# compiler sees the same operations.
_traced_once = jax.jit(_normalise, static_argnums=(4, 5))


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
  """Sum over all positions: [..., c] -> [1, ..., c]."""
  shape = (1,) * (x.ndim - 1) + x.shape[-1:]
  axes = tuple(range(x.ndim - 1))

  def in_rows(x: jax.Array) -> jax.Array:
    # Over several axes, or of a product that is not written first, XLA sums up to
    # eight times as slowly on a CPU, and with 30 times the error.
    rows = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
    return rows.sum(axis=0).reshape(shape)

  over_axes = lambda x: x.sum(axis=axes, keepdims=True)
  return jax.lax.platform_dependent(x, cpu=in_rows, default=over_axes)


def batch_norm(
  x: jax.Array,
  *,
  is_training: bool,
  axis_name: str | None,
  decay: float = 0.9,
  scale_init: hk.initializers.Initializer | None = None,
  mask: jax.Array | None = None,
  name: str,
) -> jax.Array:
  """Normalises the last axis of x, with batch statistics over the devices of an axis.

  The axis does not matter to initial values: the network can be initialised outside it.

  Args:
    x: [..., c].
    is_training: whether to normalise by statistics of this batch, in float32, and to
      update their averages.
    axis_name: the mapped axis of the devices that share their statistics, or None.
    decay: of the averages.
    scale_init: of the scale; ones by default.
    mask: [..., 1] bool, True on the positions that count; axes of length 1 are for all
      positions along them. The statistics are those of these positions on all devices,
      and the result is 0 elsewhere, as a convolution sees it beyond the edge of an
      image. None: all of them.
    name: of the module.
  """
  layer = BatchNorm(
    decay, scale_init or jnp.ones, None if hk.running_init() else axis_name, name
  )
  # Initial statistics are made in training mode only.
  return layer(x, is_training or hk.running_init(), mask)


def strided(content: jax.Array | None, stride: int) -> jax.Array | None:
  """Rows and columns that are left of content [n, 2] after layers of a stride.

  A map of h rows has ⌈h/stride⌉ after a convolution or pooling as padded here.
  """
  return None if content is None else -(-content // stride)


def content_mask(x: jax.Array, content: jax.Array | None) -> jax.Array | None:
  """Which positions of maps are content, [n, h, w, 1] bool.

  Args:
    x: maps [n, h, w, c].
    content: [n, 2] integers, rows and columns that are content, from the top left; None
      if everything is, and so is the mask.
  """
  if content is None:
    return None
  chex.assert_shape(content, (len(x), 2))
  # [n, h] and [n, w].
  rows, columns = (
    jnp.arange(size)[None] < content[:, axis, None]
    for axis, size in enumerate(x.shape[1:3])
  )
  return (rows[:, :, None] & columns[:, None, :])[..., None]


def without_padding(x: jax.Array, content: jax.Array | None) -> jax.Array:
  """Maps [n, h, w, c] with 0 outside of their content; see `content_mask`."""
  mask = content_mask(x, content)
  return x if mask is None else jnp.where(mask, x, 0)


def spatial_mean(x: jax.Array, content: jax.Array | None) -> jax.Array:
  """Mean over the content of maps [n, h, w, c], float32 [n, c]; see `content_mask`."""
  mask = content_mask(x, content)
  if mask is not None:
    mask = jnp.broadcast_to(mask, x.shape)
  return jnp.mean(x, axis=(1, 2), dtype=jnp.float32, where=mask)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """Takes the maximum of 3×3 windows at stride 2, padded by one pixel of -∞.

  The gradient goes to the first of equal values of a window, row by row.
  """
  return _maxima(x)


def _maxima(x: jax.Array) -> jax.Array:
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
  )


def _max_pool_gradient(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
  # On a CPU, XLA's own takes eight times as long: it scatters value by value.
  of_x = jax.lax.platform_dependent(x, gradient, cpu=_gathered, default=_scattered)
  return (of_x,)


def _scattered(x: jax.Array, gradient: jax.Array) -> jax.Array:
  """The gradient as XLA derives it: every window adds to its maximum."""
  return jax.vjp(_maxima, x)[1](gradient)[0]


_Windows = tuple[tuple[int, int], ...]

# Row 2r of the padded input is the first row of window r and the last of window r - 1,
# row 2r + 1 the middle of window r: (row in the window, windows back), by parity.
_WINDOWS_OF_A_ROW: tuple[_Windows, ...] = (((0, 0), (2, 1)), ((1, 0),))


def _gathered(x: jax.Array, gradient: jax.Array) -> jax.Array:
  """The same gradient: every pixel sums it over the windows whose maximum it is."""
  height, width = x.shape[1:3]
  n, rows, columns, channels = gradient.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)

  def pixels(k: int) -> jax.Array:
    """Of pixels 0 … 8 of a window, the k-th of every window."""
    i, j = divmod(k, 3)
    return padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]

  # Found by order alone: a maximum that is computed anew may be rounded otherwise.
  where, largest = jnp.zeros(gradient.shape, jnp.int32), pixels(0)
  for k in range(1, 9):
    where = jnp.where(pixels(k) > largest, k, where)
    largest = jnp.maximum(pixels(k), largest)
  where = jax.lax.optimization_barrier(where)  # Not once more for each of its uses.

  def collected(row_windows: _Windows, column_windows: _Windows) -> jax.Array:
    """The gradient of every second row and column, [n, rows + 1, columns + 1, c]."""
    parts = []
    for i, up in row_windows:
      for j, left in column_windows:
        part = jnp.where(where == 3 * i + j, gradient, 0)
        parts.append(jnp.pad(part, ((0, 0), (up, 1 - up), (left, 1 - left), (0, 0))))
    return sum(parts[1:], parts[0])

  # Side by side in memory, so that pixels of the four take turns: columns, then rows.
  double_rows = [
    jnp.concatenate([collected(i, j) for j in _WINDOWS_OF_A_ROW], axis=-1)
    for i in _WINDOWS_OF_A_ROW
  ]
  whole = jnp.concatenate([x.reshape(n, rows + 1, -1) for x in double_rows], axis=-1)
  whole = whole.reshape(n, 2 * (rows + 1), 2 * (columns + 1), channels)
  return whole[:, 1 : height + 1, 1 : width + 1]


max_pool.defvjp(lambda x: (_maxima(x), x), _max_pool_gradient)
