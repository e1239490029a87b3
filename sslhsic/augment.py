"""Augmentation on the accelerator: what follows the random crop made on the host.

`keys` gives every image a key of its own, `create` a named policy: a jitted function
of a batch of keys and uint8 images. A policy is a table of operations and their
probabilities. An operation is a pure function of one image, float32 [H, W, C] in
[0, 1], or of a key and that image, and is vectorised over the batch by `jax.vmap`.

The policies of the two views, their order and constants are those of BYOL (Grill et
al., 2020, appendix B, arXiv:2006.07733), which SSL-HSIC takes over.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from absl import logging
from jax.scipy import ndimage

from sslhsic import registry

Operation = Callable[[jax.Array, jax.Array], jax.Array]  # key, image -> image
Policy = Callable[[jax.Array, jax.Array], jax.Array]  # keys, images -> images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIGITS_MEAN = (0.3053,)  # of scikit-learn's digits, scaled to [0, 1]
DIGITS_STD = (0.3760,)
FASHION_MNIST_MEAN = (0.2860,)  # Of the training images, as is usual.
FASHION_MNIST_STD = (0.3530,)

# Accelerators round float32 products to fewer bits unless told not to.
_HIGHEST = jax.lax.Precision.HIGHEST


def keys(seed_key: jax.Array, index: jax.Array, view: int) -> jax.Array:
  """Keys that depend on nothing but the seed, the image's index and the view.

  Args:
    seed_key: typed key of the run, `jax.random.key(seed)`.
    index: [b] int32 or uint32, positions of the images in the global stream.
    view: 0 or 1.

  Returns:
    [b] keys.

  Raises:
    ValueError: if `seed_key` is not a typed threefry key. Random bits of other
      generators depend on the batch an image is in.
  """
  if str(seed_key.dtype) != 'key<fry>':
    raise ValueError(
      f"seed_key has dtype {seed_key.dtype}, expected 'key<fry>'; "
      "make it with jax.random.key(seed, impl='threefry2x32')"
    )
  chex.assert_rank([seed_key, index], [0, 1])
  view_key = jax.random.fold_in(seed_key, view)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(view_key, index)


def flip(image: jax.Array) -> jax.Array:
  """Mirrors left and right of an image [H, W, C]."""
  return image[:, ::-1]


def brightness(image: jax.Array, delta: jax.Array) -> jax.Array:
  """Adds `delta`, a scalar, to an image [H, W, C]."""
  return image + delta


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Scales an image [H, W, C] by `factor`, a scalar, about the mean of each channel."""
  mean = image.mean(axis=(0, 1), keepdims=True)
  return mean + factor * (image - mean)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies S in HSV by `factor` >= 0, clipped to 1, in an RGB image [H, W, 3].

  With V = max, S = (V - min) / V, and H and V fixed, every channel x moves on a line,
  V - (V - x)·S'/S, so the hue is never computed.
  """
  _check_rgb(image)
  value, chroma = _value_and_chroma(image)
  # S'/S = min(factor, 1/S) with 1/S = V/C; grey has x = V, so any ratio keeps it.
  ratio = jnp.minimum(factor, value / jnp.where(chroma > 0, chroma, 1.0))
  return value - (value - image) * ratio


def hue(image: jax.Array, delta: jax.Array) -> jax.Array:
  """Adds `delta`, in turns of the colour circle, to H in HSV of an image [H, W, 3].

  With h the hue in sixths of a turn, V = max and C = max - min, channels are
  V - C·clip(min(k, 4 - k), 0, 1), k = (n + h) mod 6, n = 5, 3, 1 for red, green, blue.
  """
  _check_rgb(image)
  value, chroma = _value_and_chroma(image)
  red, green, blue = jnp.split(image, 3, axis=-1)
  divisor = jnp.where(chroma > 0, chroma, 1.0)
  # The hue counts from the largest channel: red at 0, green at 2, blue at 4.
  sixths = jnp.select(
    [value == red, value == green],
    [(green - blue) / divisor, 2 + (blue - red) / divisor],
    4 + (red - green) / divisor,
  )
  k = (jnp.array([[[5.0, 3.0, 1.0]]]) + sixths + 6 * delta) % 6
  return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def _is_rgb(image: jax.Array) -> bool:
  return image.ndim == 3 and image.shape[-1] == 3


def _check_rgb(image: jax.Array) -> None:
  if not _is_rgb(image):
    raise ValueError(
      f'saturation, hue and grayscale need RGB images [H, W, 3], not {image.shape}; '
      "for others use a policy such as 'gray'"
    )


def _value_and_chroma(image: jax.Array) -> tuple[jax.Array, jax.Array]:
  value = image.max(axis=-1, keepdims=True)
  return value, value - image.min(axis=-1, keepdims=True)


def color_jitter(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Brightness, contrast, saturation and hue of [H, W, C] at random, in random order.

  After each of the four the image is clipped to [0, 1]. Images that are not RGB have
  no saturation and no hue: two operations are left.
  """
  order_rng, strength_rng = jax.random.split(rng)
  # BYOL's strengths, in the order of `operations`.
  largest = jnp.array([0.4, 0.4, 0.2, 0.1])
  strength = largest * jax.random.uniform(strength_rng, (4,), minval=-1, maxval=1)
  operations = (
    lambda image: brightness(image, strength[0]),
    lambda image: contrast(image, 1 + strength[1]),
    lambda image: saturation(image, 1 + strength[2]),
    lambda image: hue(image, strength[3]),
  )[: 4 if _is_rgb(image) else 2]
  order = jax.random.permutation(order_rng, len(operations))

  # A loop: unrolled, XLA fuses the rounds, repeats work and is half as fast on CPU.
  def one_round(i: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.clip(jax.lax.switch(order[i], operations, image), 0, 1)

  return jax.lax.fori_loop(0, len(operations), one_round, image)


def grayscale(image: jax.Array) -> jax.Array:
  """Replaces the channels of [H, W, 3] by their luma, 0.2989 R + 0.587 G + 0.114 B."""
  _check_rgb(image)
  weights = jnp.array([[[0.2989, 0.5870, 0.1140]]])
  luma = (weights * image).sum(axis=-1, keepdims=True)
  return jnp.broadcast_to(luma, image.shape)


def blur(image: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
  """Convolves [H, W, C] with a Gaussian, with zeros beyond the border.

  Both passes are products with a banded Toeplitz matrix, for the matrix units.

  Args:
    image: [H, W, C].
    sigma: standard deviation in pixels, a positive scalar.
    radius: the normalised kernel has 2·radius + 1 taps.

  Returns:
    [H, W, C].
  """
  height, width, _ = image.shape
  rows = _gaussian_toeplitz(height, sigma, radius)
  columns = _gaussian_toeplitz(width, sigma, radius)
  return jnp.einsum('ih,jw,hwc->ijc', rows, columns, image, precision=_HIGHEST)


def _gaussian_toeplitz(size: int, sigma: jax.Array, radius: int) -> jax.Array:
  """[size, size] matrix whose rows are the kernel, shifted; cut off at the ends."""
  gaussian = lambda offset: jnp.exp(-0.5 * (offset / sigma) ** 2)
  position = jnp.arange(size, dtype=jnp.float32)
  offset = position[:, None] - position[None, :]
  band = jnp.where(jnp.abs(offset) <= radius, gaussian(offset), 0.0)
  # Cut-off rows divide by the sum of all taps too: zeros beyond the border count.
  return band / gaussian(jnp.arange(-radius, radius + 1, dtype=jnp.float32)).sum()


def gaussian_blur(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Blurs [H, W, C] with sigma ~ U(0.1, 2) and a kernel a tenth of the shorter side.

  The kernel is odd: 23 taps at 224 pixels, 7 at 64, one (no blur) below 20.
  """
  sigma = jax.random.uniform(rng, minval=0.1, maxval=2.0)
  return blur(image, sigma, radius=min(image.shape[:2]) // 20)


def solarize(image: jax.Array) -> jax.Array:
  """Inverts the values of an image that are not below a half."""
  return jnp.where(image < 0.5, image, 1 - image)


def affine(image: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
  """Puts at pixel p the value that the image [H, W, C] has at `matrix`·p + `offset`.

  Bilinear between pixels, and between the border and the zeros beyond it.

  Args:
    image: [H, W, C].
    matrix: [2, 2], acts on (row, column).
    offset: [2], in pixels.

  Returns:
    [H, W, C].
  """
  chex.assert_shape([matrix, offset], [(2, 2), (2,)])
  pixels = jnp.indices(image.shape[:2], dtype=jnp.float32)
  positions = jnp.einsum('ij,jhw->ihw', matrix, pixels, precision=_HIGHEST)
  row, column = positions + offset[:, None, None]
  sample = lambda channel: ndimage.map_coordinates(channel, [row, column], order=1)
  return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def random_affine(
  rng: jax.Array,
  image: jax.Array,
  *,
  scale: float,
  stretch: float,
  rotation: float,
  shear: float,
  translation: float,
) -> jax.Array:
  """Scales, shears, rotates about the centre and moves the content of [H, W, C].

  Args:
    rng: key.
    image: [H, W, C].
    scale: the size is multiplied by U(1 - scale, 1 + scale).
    stretch: besides, the height by 1 + s and the width by 1 - s, s up to ±stretch.
    rotation: largest angle, in degrees.
    shear: largest shift of a row, in pixels per pixel of distance to the centre.
    translation: largest shift along either axis, in pixels.

  Returns:
    [H, W, C].
  """
  radians = math.radians(rotation)
  largest = jnp.array([scale, stretch, radians, shear, translation, translation])
  draws = largest * jax.random.uniform(rng, (6,), minval=-1, maxval=1)
  size, ratio, angle, slope, *_ = draws
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  # The inverse of rotation · shear · zoom: from the result back to the image.
  unshear_unrotate = jnp.array([[cos, sin], [-slope * cos - sin, cos - slope * sin]])
  zoom = (1 + size) * jnp.array([1 + ratio, 1 - ratio])
  matrix = unshear_unrotate / zoom[:, None]
  centre = (jnp.array(image.shape[:2], jnp.float32) - 1) / 2
  # The point `centre` + translation of the result shows the centre of the image.
  offset = centre - jnp.dot(matrix, centre + draws[4:], precision=_HIGHEST)
  return affine(image, matrix, offset)


def crop_and_resize(
  image: jax.Array,
  top: jax.Array,
  left: jax.Array,
  height: jax.Array,
  width: jax.Array,
) -> jax.Array:
  """Resizes a window of an image [H, W, C] to the size of the image.

  Bilinear, with half-pixel centres and the border repeated. Both passes are products
  with a matrix, as in `blur`.

  Args:
    image: [H, W, C].
    top: upper border of the window, in pixels; a fraction is possible.
    left: left border.
    height: of the window.
    width: of the window.

  Returns:
    [H, W, C].
  """
  rows = _resampling(image.shape[0], top, height)
  columns = _resampling(image.shape[1], left, width)
  return jnp.einsum('ih,jw,hwc->ijc', rows, columns, image, precision=_HIGHEST)


def _resampling(size: int, start: jax.Array, length: jax.Array) -> jax.Array:
  """[size, size] matrix that interpolates `size` values from `start` on."""
  pixels = jnp.arange(size, dtype=jnp.float32)
  position = jnp.clip(start + (pixels + 0.5) * length / size - 0.5, 0, size - 1)
  # Linear interpolation: weights fall from 1 to 0 over the distance of one pixel.
  return jnp.maximum(1 - jnp.abs(position[:, None] - pixels[None, :]), 0)


def random_resized_crop(
  rng: jax.Array, image: jax.Array, *, area: float, aspect: float
) -> jax.Array:
  """Crops a random window of [H, W, C] and resizes it to the size of the image.

  Args:
    rng: key.
    image: [H, W, C].
    area: the window covers U(area, 1) of the image; each side is clipped to it.
    aspect: largest ratio of the sides, of either orientation, log-uniform.

  Returns:
    [H, W, C].
  """
  return crop_and_resize(image, *_random_window(rng, image, (area, 1.0), aspect))


def _random_window(
  rng: jax.Array, image: jax.Array, area: tuple[float, float], aspect: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Top, left, height and width of a window inside an image, in pixels."""
  area_rng, aspect_rng, top_rng, left_rng = jax.random.split(rng, 4)
  smallest, largest = area
  side = jnp.sqrt(jax.random.uniform(area_rng, minval=smallest, maxval=largest))
  log_aspect = math.log(aspect)
  log_ratio = jax.random.uniform(aspect_rng, minval=-log_aspect, maxval=log_aspect)
  # Half of the log ratio for each side, so that before clipping the area is side².
  ratio = jnp.exp(log_ratio / 2)
  height = jnp.minimum(side / ratio, 1) * image.shape[0]
  width = jnp.minimum(side * ratio, 1) * image.shape[1]
  top = jax.random.uniform(top_rng) * (image.shape[0] - height)
  left = jax.random.uniform(left_rng) * (image.shape[1] - width)
  return top, left, height, width


def random_erase(
  rng: jax.Array, image: jax.Array, *, area: float, aspect: float
) -> jax.Array:
  """Blackens a random rectangle inside [H, W, C] (Zhong et al., arXiv:1708.04896).

  Args:
    rng: key.
    image: [H, W, C].
    area: the rectangle covers U(0, area) of the image.
    aspect: largest ratio of the sides, of either orientation, log-uniform.

  Returns:
    [H, W, C].
  """
  top, left, height, width = _random_window(rng, image, (0.0, area), aspect)
  # A pixel belongs to the rectangle if its centre does.
  rows, columns = jnp.indices(image.shape[:2], dtype=jnp.float32) + 0.5
  is_inside = (rows > top) & (rows < top + height)
  is_inside &= (columns > left) & (columns < left + width)
  return jnp.where(is_inside[..., None], 0.0, image)


def random_contrast(rng: jax.Array, image: jax.Array, *, strength: float) -> jax.Array:
  """Scales an image about its mean by U(1 - strength, 1 + strength)."""
  return contrast(
    image, jax.random.uniform(rng, minval=1 - strength, maxval=1 + strength)
  )


def random_gain(rng: jax.Array, image: jax.Array, *, strength: float) -> jax.Array:
  """Multiplies an image by U(1 - strength, 1 + strength): contrast to black."""
  return image * jax.random.uniform(rng, minval=1 - strength, maxval=1 + strength)


def gaussian_noise(rng: jax.Array, image: jax.Array, *, sigma: float) -> jax.Array:
  """Adds independent N(0, sigma²) to every value of an image."""
  return image + sigma * jax.random.normal(rng, image.shape)


def normalize(
  image: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Subtracts `mean` from [H, W, C] and divides by `std`, one number a channel each."""
  channels = image.shape[-1]
  if not len(mean) == len(std) == channels:
    raise ValueError(
      f'mean has {len(mean)} values and std {len(std)}, but images have {channels} '
      f'channels; pass mean and std with {channels} values each'
    )
  per_channel = lambda values: jnp.array(values, jnp.float32)[None, None]
  return (image - per_channel(mean)) / per_channel(std)


def _keyless(operation: Callable[[jax.Array], jax.Array]) -> Operation:
  """The operation as a step of a policy, which is given a key whether it needs it."""
  return lambda rng, image: operation(image)


def _clip(image: jax.Array) -> jax.Array:
  return jnp.clip(image, 0, 1)


def _policy(
  steps: Sequence[tuple[Operation, float]],
  mean: Sequence[float] = IMAGENET_MEAN,
  std: Sequence[float] = IMAGENET_STD,
) -> Policy:
  """The steps, each with its probability and a key of its own, then `normalize`."""

  def augment(rng: jax.Array, image: jax.Array) -> jax.Array:
    image = image.astype(jnp.float32) / 255
    for number, (operation, probability) in enumerate(steps):
      chance_rng, rng_of_step = jax.random.split(jax.random.fold_in(rng, number))
      chosen = jax.random.bernoulli(chance_rng, probability)
      # Both outcomes are computed: under `vmap`, `lax.cond` is a select as well.
      image = jnp.where(chosen, operation(rng_of_step, image), image)
    return normalize(image, mean, std)

  @jax.jit
  def policy(rngs: jax.Array, images: jax.Array) -> jax.Array:
    chex.assert_rank([rngs, images], [1, 4])
    chex.assert_type(images, jnp.uint8)
    return jax.vmap(augment)(rngs, images)

  return policy


def depth_jitter(rng: jax.Array, image: jax.Array) -> jax.Array:
  """Brightness, saturation and hue of [H, W, 3] at random, clipped at the end.

  The strengths of BYOL's depth estimation (arXiv:2006.07733, appendix).
  """
  largest = jnp.array([0.1255, 0.5, 0.2])
  delta, factor, turn = largest * jax.random.uniform(rng, (3,), minval=-1, maxval=1)
  image = _clip(brightness(image, delta))
  return _clip(hue(saturation(image, 1 + factor), turn))


_DEPTH = (
  (_keyless(grayscale), 0.3),
  (depth_jitter, 1.0),
)

# Operation, its probability in view 1, and in view 2.
_BYOL = (
  (_keyless(flip), 0.5, 0.5),
  (color_jitter, 0.8, 0.8),
  # What has no colour stays as it is.
  (_keyless(lambda image: grayscale(image) if _is_rgb(image) else image), 0.2, 0.2),
  (gaussian_blur, 1.0, 0.1),
  (_keyless(solarize), 0.0, 0.2),
  (_keyless(_clip), 1.0, 1.0),
)


def _digits(
  *,
  scale: float = 0.15,
  stretch: float = 0.05,
  rotation: float = 12.0,
  shear: float = 0.1,
  translation: float = 1.0,
  gain: float = 0.3,
  noise: float = 0.05,
  mean: Sequence[float] = DIGITS_MEAN,
  std: Sequence[float] = DIGITS_STD,
) -> Policy:
  """Always moves, scales and adds noise; only the strengths are random."""
  move = functools.partial(
    random_affine,
    scale=scale,
    stretch=stretch,
    rotation=rotation,
    shear=shear,
    translation=translation,
  )
  steps = (
    (move, 1.0),
    (functools.partial(random_gain, strength=gain), 1.0),
    # Before the noise, so that noise on a black ground has mean zero.
    (_keyless(_clip), 1.0),
    (functools.partial(gaussian_noise, sigma=noise), 1.0),
  )
  return _policy(steps, mean, std)


def _gray(
  *,
  area: float = 0.3,
  aspect: float = 4 / 3,
  flips: float = 0.5,
  gain: float = 0.4,
  contrast: float = 0.4,
  blur: float = 0.5,
  erase: float = 0.25,
  mean: Sequence[float] = FASHION_MNIST_MEAN,
  std: Sequence[float] = FASHION_MNIST_STD,
) -> Policy:
  """Crops, mirrors, changes brightness and contrast, blurs, erases."""
  crop = functools.partial(random_resized_crop, area=area, aspect=aspect)
  steps = (
    (crop, 1.0),
    (_keyless(flip), flips),
    (functools.partial(random_gain, strength=gain), 1.0),
    (functools.partial(random_contrast, strength=contrast), 1.0),
    (_keyless(_clip), 1.0),
    (gaussian_blur, blur),
    (functools.partial(random_erase, area=0.2, aspect=3.0), erase),
  )
  return _policy(steps, mean, std)


def _byol(
  view: int,
  *,
  mean: Sequence[float] = IMAGENET_MEAN,
  std: Sequence[float] = IMAGENET_STD,
) -> Policy:
  """View 1 or 2; what needs colour is left out for images that are not RGB."""
  if len(mean) != 3:
    logging.warning(
      'byol_view%d leaves out saturation, hue and grayscale: images have %d channels',
      view,
      len(mean),
    )
  return _policy([(step, p[view - 1]) for step, *p in _BYOL], mean, std)


_POLICIES: dict[str, Callable[..., Policy]] = {
  'byol_view1': functools.partial(_byol, 1),
  'byol_view2': functools.partial(_byol, 2),
  'depth': functools.partial(_policy, _DEPTH),
  'digits': _digits,
  'flip': functools.partial(_policy, [(_keyless(flip), 0.5)]),
  'gray': _gray,
  'none': functools.partial(_policy, []),
}


def create(name: str, **settings: Any) -> Policy:
  """A policy by name: keys [b] and uint8 images [b, H, W, C] to float32 [b, H, W, C].

  'byol_view1' and 'byol_view2' are the two views of BYOL; of images that are not RGB
  they change brightness and contrast, but no saturation, hue or grayscale, and a
  warning says so; 'digits' moves,
  scales and disturbs small images on a black ground; 'gray' crops, mirrors and
  disturbs small images of any number of channels, such as the clothing of
  Fashion-MNIST; 'flip' (training a linear classifier) mirrors half of the images;
  'depth' changes the colours of RGB; 'none' (evaluation) only normalises.

  Args:
    name: one of the above.
    **settings: `mean` and `std`, one number a channel, of values in [0, 1]; by
      default those of ImageNet, for 'digits' and 'gray' those of the digits and of
      Fashion-MNIST. For 'digits' also the strengths `scale`, `stretch`, `rotation`,
      `shear`, `translation` (see `random_affine`), `gain` and `noise` (see
      `random_gain` and `gaussian_noise`). For 'gray' also `area` and `aspect` of the
      crop (see `random_resized_crop`), the strengths `gain` and `contrast` (see
      `random_gain` and `random_contrast`), and the probabilities `flips`, `blur` (see
      `gaussian_blur`) and `erase` (of a black rectangle, up to a fifth of the area).

  Returns:
    The policy, jitted.

  Raises:
    ValueError: there is no policy of that name, or it has no such setting.
  """
  return registry.find('policy', _POLICIES, name, settings)(**settings)
