"""Augmentation against NumPy, SciPy and scikit-image; statistics of the policies."""

import itertools

import cv2
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, stats
from skimage import color

from sslhsic import augment

UNSCALED = {'mean': (0.0, 0.0, 0.0), 'std': (1.0, 1.0, 1.0)}
NO_STRENGTH = {
  'scale': 0.0,
  'stretch': 0.0,
  'rotation': 0.0,
  'shear': 0.0,
  'translation': 0.0,
  'gain': 0.0,
  'noise': 0.0,
}
GRAY_UNCHANGED = {
  'area': 1.0,
  'aspect': 1.0,
  'flips': 0.0,
  'gain': 0.0,
  'contrast': 0.0,
  'blur': 0.0,
  'erase': 0.0,
}

# Few different values, so that grey pixels, ties and the ends of the range occur.
pixels = st.sampled_from([0, 1, 100, 127, 128, 200, 254, 255])
rgb_images = st.one_of(
  hnp.arrays(np.uint8, (4, 5, 3), elements=pixels),
  hnp.arrays(np.uint8, (4, 5, 3)),
  pixels.map(lambda value: np.full((4, 5, 3), value, np.uint8)),
)
many = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)


def random_images(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def unit_image(*shape, seed=0):
  return np.random.default_rng(seed).random(shape, np.float32)


def many_keys(count, view=0):
  return augment.keys(jax.random.key(7), jnp.arange(count), view)


def assert_uniform(values, low, high):
  values = np.asarray(values, np.float64)
  assert values.min() >= low - 1e-5
  assert values.max() <= high + 1e-5
  assert stats.kstest(values, 'uniform', args=(low, high - low)).pvalue > 1e-3


def assert_frequency(events, probability):
  error = np.sqrt(probability * (1 - probability) / len(events))
  assert abs(np.mean(events) - probability) <= 4 * error


# Keys.


def test_keys_depend_on_seed_index_and_view_only():
  data = lambda *args: np.asarray(jax.random.key_data(augment.keys(*args)))
  index = jnp.array([3, 70_000, 5], jnp.uint32)
  whole = data(jax.random.key(0), index, 0)
  np.testing.assert_array_equal(whole[1:], data(jax.random.key(0), index[1:], 0))
  np.testing.assert_array_equal(
    whole, data(jax.random.key(0), index.astype(jnp.int32), 0)
  )
  other_view = data(jax.random.key(0), index, 1)
  other_seed = data(jax.random.key(1), index, 0)
  every = np.concatenate([whole, other_view, other_seed])
  assert len(np.unique(every, axis=0)) == 9


@pytest.mark.parametrize(
  'seed_key', [jax.random.PRNGKey(0), jax.random.key(0, impl='rbg')]
)
def test_keys_refuse_other_generators(seed_key):
  with pytest.raises(ValueError, match=r'expected .*jax\.random\.key'):
    augment.keys(seed_key, jnp.arange(2), 0)


# Operations.


def test_flip_mirrors_columns():
  image = unit_image(3, 4, 2)
  np.testing.assert_array_equal(augment.flip(image), np.fliplr(image))


@pytest.mark.parametrize('channels', [1, 3])
def test_brightness_and_contrast(channels):
  image = unit_image(5, 4, channels)
  mean = np.mean(image, axis=(0, 1))
  np.testing.assert_allclose(augment.brightness(image, 0.3), image + 0.3, atol=1e-6)
  np.testing.assert_allclose(
    augment.contrast(image, 1.3), 1.3 * image + (1 - 1.3) * mean, atol=1e-6
  )


def reference_saturation(image, factor):
  hsv = color.rgb2hsv(image)
  hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
  return color.hsv2rgb(hsv)


def reference_hue(image, delta):
  hsv = color.rgb2hsv(image)
  hsv[..., 0] = (hsv[..., 0] + delta) % 1
  return color.hsv2rgb(hsv)


@pytest.mark.parametrize(
  ('operation', 'reference', 'strengths'),
  [
    (augment.saturation, reference_saturation, st.floats(0, 3, width=32)),
    (augment.hue, reference_hue, st.floats(-1, 1, width=32)),
  ],
)
def test_saturation_and_hue_match_scikit_image(operation, reference, strengths):
  jitted = jax.jit(operation)

  @many
  @hypothesis.given(rgb_images, strengths)
  def check(image, strength):
    image = image / 255.0
    actual = jitted(image.astype(np.float32), np.float32(strength))
    np.testing.assert_allclose(actual, reference(image, strength), atol=3e-6)

  check()


@pytest.mark.parametrize(
  'operation', [augment.saturation, augment.hue, lambda x, _: augment.grayscale(x)]
)
def test_colour_operations_refuse_one_channel(operation):
  with pytest.raises(ValueError, match=r"not \(4, 4, 1\); .* use a policy .*'gray'"):
    operation(jnp.zeros((4, 4, 1)), 0.5)


def test_grayscale_weights():
  image = unit_image(3, 4, 3)
  luma = image @ np.array([0.2989, 0.5870, 0.1140])
  expected = np.stack([luma] * 3, axis=-1)
  np.testing.assert_allclose(augment.grayscale(image), expected, atol=1e-6)


def test_solarize_inverts_from_one_half_upwards():
  image = jnp.array([[[0.0, 0.25, 0.4999, 0.5, 0.75, 1.0]]])
  expected = [[[0.0, 0.25, 0.4999, 0.5, 0.25, 0.0]]]
  np.testing.assert_allclose(augment.solarize(image), expected, atol=1e-7)


@pytest.mark.parametrize('sigma', [0.1, 0.7, 2.0])
@pytest.mark.parametrize(('shape', 'radius'), [((24, 30, 3), 11), ((6, 5, 1), 2)])
def test_blur_matches_scipy(shape, radius, sigma):
  image = unit_image(*shape)
  kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
  kernel /= kernel.sum()
  expected = image.astype(np.float64)
  for axis in (0, 1):
    expected = ndimage.convolve1d(expected, kernel, axis, mode='constant', cval=0.0)
  actual = jax.jit(augment.blur, static_argnums=2)(image, np.float32(sigma), radius)
  np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize(('side', 'taps'), [(224, 23), (64, 7), (20, 3), (8, 1)])
def test_kernel_of_blur_is_a_tenth_of_the_side(side, taps):
  impulse = np.zeros((side, side, 1), np.float32)
  impulse[side // 2, side // 2] = 1
  # The widest of a few, so that no tap is too small to be seen.
  blurred = jax.vmap(augment.gaussian_blur, in_axes=(0, None))(many_keys(8), impulse)
  seen = np.asarray(blurred).max(axis=0)[side // 2, :, 0] > 0
  assert seen.sum() == taps


def test_sigma_of_blur_is_uniform():
  impulse = np.zeros((41, 41, 1), np.float32)
  impulse[20, 20] = 1
  blurred = jax.vmap(augment.gaussian_blur, in_axes=(0, None))(many_keys(800), impulse)
  side, centre = np.asarray(blurred, np.float64)[:, 20, 19:21, 0].T
  assert_uniform(np.sqrt(-0.5 / np.log(side / centre)), 0.1, 2.0)


@pytest.mark.parametrize('seed', range(3))
def test_affine_matches_scipy(seed):
  generator = np.random.default_rng(seed)
  matrix = (np.eye(2) + generator.uniform(-0.4, 0.4, (2, 2))).astype(np.float32)
  offset = generator.uniform(-3, 3, 2).astype(np.float32)
  image = unit_image(9, 7, 2, seed=seed)
  expected = [
    ndimage.affine_transform(plane, matrix, offset, order=1, mode='grid-constant')
    for plane in np.moveaxis(image, -1, 0)
  ]
  actual = augment.affine(image, jnp.asarray(matrix), jnp.asarray(offset))
  np.testing.assert_allclose(actual, np.stack(expected, axis=-1), atol=1e-5)


def test_random_affine_draws_every_strength_uniformly():
  # A ramp stays a ramp under an affine map, so its slopes give the map away.
  ramps = np.moveaxis(np.indices((15, 15)), 0, -1).astype(np.float32)
  strengths = {
    'scale': 0.15,
    'stretch': 0.05,
    'rotation': 12.0,
    'shear': 0.1,
    'translation': 1.0,
  }
  warp = jax.jit(lambda rng: augment.random_affine(rng, jnp.array(ramps), **strengths))
  moved = np.asarray(jax.vmap(warp)(many_keys(800)), np.float64)[:, 5:10, 5:10]
  position = np.concatenate([ramps, np.ones((15, 15, 1))], axis=-1)[5:10, 5:10]
  solution = np.linalg.pinv(position.reshape(25, 3)) @ moved.reshape(-1, 25, 2)
  inverse, offset = solution[:, :2].swapaxes(1, 2), solution[:, 2]

  forward, centre = np.linalg.inv(inverse), np.array([7.0, 7.0])
  shift = np.einsum('nij,nj->ni', forward, centre - offset) - centre
  angle = np.arctan2(-forward[:, 0, 1], forward[:, 1, 1])
  cos, sin = np.cos(angle), np.sin(angle)
  rotation = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)
  sheared = np.linalg.inv(rotation) @ forward  # [[height, 0], [shear·height, width]]
  height, width = sheared[:, 0, 0], sheared[:, 1, 1]
  assert_uniform((height + width) / 2 - 1, -0.15, 0.15)
  assert_uniform((height - width) / (height + width), -0.05, 0.05)
  assert_uniform(np.rad2deg(angle), -12, 12)
  assert_uniform(sheared[:, 1, 0] / height, -0.1, 0.1)
  assert_uniform(shift[:, 0], -1, 1)
  assert_uniform(shift[:, 1], -1, 1)


@pytest.mark.parametrize('shape', [(28, 28, 1), (9, 14, 3)])
def test_crop_and_resize_matches_opencv(shape):
  image = unit_image(*shape)
  top, left, height, width = 2, 5, 6, 8
  window = image[top : top + height, left : left + width]
  expected = cv2.resize(window, shape[1::-1], interpolation=cv2.INTER_LINEAR)
  actual = jax.jit(augment.crop_and_resize)(
    image, *(np.float32(x) for x in (top, left, height, width))
  )
  # Beyond the centres of its outer pixels, a window of an image has neighbours.
  inner = (slice(shape[0] // 6 + 1, -shape[0] // 6 - 1), slice(2, -3))
  np.testing.assert_allclose(
    np.asarray(actual)[inner], expected.reshape(shape)[inner], atol=1e-5
  )
  whole = augment.crop_and_resize(image, 0.0, 0.0, *map(float, shape[:2]))
  np.testing.assert_allclose(whole, image, atol=1e-5)


def test_crop_draws_area_aspect_and_position_uniformly():
  # A ramp stays a ramp in a crop, so its slopes and its start give the window away.
  ramps = np.moveaxis(np.indices((30, 30)), 0, -1).astype(np.float32)
  crop = lambda rng: augment.random_resized_crop(
    rng, jnp.array(ramps), area=0.3, aspect=1.2
  )
  out = np.asarray(jax.jit(jax.vmap(crop))(many_keys(800)), np.float64)
  slope = np.stack([out[:, 20, 15, 0] - out[:, 10, 15, 0], out[:, 15, 20, 1]], axis=1)
  slope[:, 1] -= out[:, 15, 10, 1]
  sides = slope / 10 * 30  # [n, (height, width)] in pixels.
  centre = np.stack([out[:, 14:16, 15, 0], out[:, 15, 14:16, 1]], 1).mean(axis=2) + 0.5
  start = centre - sides / 2
  unclipped = (sides < 29.99).all(axis=1)
  assert unclipped.mean() > 0.8
  area, ratio = sides.prod(axis=1)[unclipped] / 900, np.log(sides[:, 1] / sides[:, 0])
  small = area < 1 / 1.2  # Below that, no side is clipped.
  assert_uniform(area[small], 0.3, 1 / 1.2)
  assert_uniform(ratio[unclipped][small], -np.log(1.2), np.log(1.2))
  position = (start / (30 - sides))[unclipped][small]
  assert_uniform(position[:, 0], 0, 1)
  assert_uniform(position[:, 1], 0, 1)
  assert (start > -1e-3).all()
  assert (start + sides < 30 + 1e-3).all()


def test_erasing_blackens_a_rectangle_inside_the_image():
  erase = lambda rng: augment.random_erase(
    rng, jnp.ones((40, 50, 2)), area=0.2, aspect=3.0
  )
  out = np.asarray(jax.jit(jax.vmap(erase))(many_keys(800)))
  black = (out == 0).all(axis=3)
  assert ((out == 1).all(axis=3) | black).all()
  rows, columns = black.any(axis=2), black.any(axis=1)
  np.testing.assert_array_equal(black, rows[:, :, None] & columns[:, None, :])
  for lines in (rows, columns):  # Without gaps.
    assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2).all()
  area = black.mean(axis=(1, 2))
  np.testing.assert_allclose([area.mean(), area.std()], [0.1, 0.2 / 12**0.5], rtol=0.06)
  large = area > 0.01
  ratio = (rows.mean(axis=1) / np.maximum(columns.mean(axis=1), 0.01))[large]
  assert 1 / 3.6 < ratio.min() < ratio.max() < 3.6


def test_normalize_refuses_a_wrong_number_of_channels():
  policy = augment.create('none')
  with pytest.raises(ValueError, match='images have 1 channels; pass mean and std'):
    policy(many_keys(2), random_images(2, 4, 4, 1))


# Colour jitter.


@pytest.fixture(scope='module')
def recorded():
  """What color_jitter draws from 4800 keys: orders [n, 4] and strengths [n, 4]."""
  names = ['brightness', 'contrast', 'saturation', 'hue']

  def recorder(code):
    def operation(image, strength):
      # Strengths are between -0.4 and 1.4, and the image is clipped to [0, 1].
      image = image.at[0, code, 0].set(0.5 + strength / 4)
      return image.at[0, 4, 0].set((image[0, 4, 0] + code) / 4)

    return operation

  with pytest.MonkeyPatch.context() as patch:
    for code, name in enumerate(names):
      patch.setattr(augment, name, recorder(code))
    jitter = jax.jit(jax.vmap(augment.color_jitter, in_axes=(0, None)))
    record = np.asarray(jitter(many_keys(4800), jnp.zeros((1, 5, 3))))[:, 0, :, 0]
  order = np.floor(record[:, 4:] * 4.0 ** np.arange(4, 0, -1)).astype(int) % 4
  return order, (record[:, :4] - 0.5) * 4


def test_order_of_jitter_is_uniform_over_permutations(recorded):
  order, _ = recorded
  permutations = list(itertools.permutations(range(4)))
  counts = [np.sum((order == each).all(axis=1)) for each in permutations]
  assert sum(counts) == len(order)
  assert stats.chisquare(counts).pvalue > 1e-3


def test_strengths_of_jitter_are_uniform_and_independent(recorded):
  _, strengths = recorded
  ranges = [(-0.4, 0.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
  for values, (low, high) in zip(strengths.T, ranges, strict=True):
    assert_uniform(values, low, high)
  correlation = np.corrcoef(strengths.T)[np.triu_indices(4, k=1)]
  assert np.abs(correlation).max() < 4 / np.sqrt(len(strengths))


def test_jitter_matches_scikit_image_step_by_step(recorded):
  order, strengths = recorded
  images = random_images(48, 6, 5, 3) / np.float32(255)
  actual = jax.jit(jax.vmap(augment.color_jitter))(many_keys(48), images)
  operations = [
    lambda image, delta: image + delta,
    lambda image, factor: (image - image.mean((0, 1))) * factor + image.mean((0, 1)),
    reference_saturation,
    reference_hue,
  ]
  for i, image in enumerate(images.astype(np.float64)):
    for code in order[i]:
      image = np.clip(operations[code](image, strengths[i, code]), 0, 1)
    np.testing.assert_allclose(actual[i], image, atol=1e-5)


# Policies.


@pytest.mark.parametrize('channels', [1, 5])
def test_views_of_other_images_than_rgb_change_no_colours(channels):
  """Of equal channels all stay equal, whatever else happens; and both views warn."""
  images = np.repeat(random_images(24, 6, 5, 1), channels, axis=-1)
  for view in ('byol_view1', 'byol_view2'):
    policy = augment.create(view, mean=(0,) * channels, std=(1,) * channels)
    views = np.asarray(policy(many_keys(24), images))
    assert views.shape == images.shape
    np.testing.assert_allclose(
      views, np.repeat(views[..., :1], channels, -1), atol=1e-6
    )
    # Brightness and contrast change, and are all that changes but order and negatives.
    flat, before = views.reshape(24, -1), images.reshape(24, -1) / 255
    assert (np.abs(flat - before).max(axis=1) > 0.01).mean() > 0.5


def test_what_is_left_out_is_logged(caplog):
  with caplog.at_level('WARNING'):
    augment.create('byol_view1', mean=(0,) * 13, std=(1,) * 13)
    augment.create('byol_view2')
  (record,) = caplog.records
  assert record.getMessage() == (
    'byol_view1 leaves out saturation, hue and grayscale: images have 13 channels'
  )


def test_strength_that_a_policy_does_not_have_is_named():
  message = r"policy digits has no setting 'noize'; did you mean 'noise'\?"
  with pytest.raises(ValueError, match=message):
    augment.create('digits', noize=0.1)
  with pytest.raises(ValueError, match=r"flip has no setting 'blur'.* mean, std$"):
    augment.create('flip', blur=0.0)


def test_unknown_policy_lists_the_known_ones():
  with pytest.raises(
    ValueError, match=r"'byol'.*byol_view1, byol_view2, depth, digits"
  ):
    augment.create('byol')


@pytest.mark.parametrize(
  ('view', 'blur', 'solarise'), [('byol_view1', 1.0, 0.0), ('byol_view2', 0.1, 0.2)]
)
def test_probabilities_of_the_views(view, blur, solarise):
  # Two flat halves, bright enough that solarising darkens them.
  colours = np.array([[200, 180, 150], [160, 210, 135]], np.uint8)
  image = np.repeat(colours, 20, axis=0)[None].repeat(40, axis=0)
  images = np.broadcast_to(image, (2000, *image.shape))
  out = np.asarray(augment.create(view, **UNSCALED)(many_keys(2000), images))
  halves = out[:, 20, [10, 30]]  # too far from the border and each other for a blur

  grey = np.ptp(halves, axis=-1).max(axis=-1) < 1e-5
  assert_frequency(grey, 0.2)

  # Without jitter the halves can take a few values only.
  luma = colours @ np.array([[0.2989], [0.5870], [0.1140]]) * np.ones((1, 3))
  looks = np.stack([colours, colours[::-1], luma, luma[::-1]]) / 255
  looks = np.concatenate([looks, 1 - looks])
  distance = np.abs(halves[:, None] - looks).max(axis=(-1, -2))
  plain = distance.min(axis=1) < 1e-4
  assert_frequency(plain, 0.2)
  look = distance.argmin(axis=1)[plain]
  assert_frequency(look % 2 == 1, 0.5)
  assert_frequency(look >= 4, solarise)

  # Blurring changes the first row, visibly unless sigma is below about 0.24.
  blurred = np.abs(out[:, 0, [10, 30]] - halves).max(axis=(1, 2)) > 1e-4
  assert_frequency(blurred, blur * (2.0 - 0.24) / (2.0 - 0.1))


def test_flip_policy_mirrors_half_of_the_images():
  images = np.broadcast_to(random_images(1, 3, 4, 3), (1000, 3, 4, 3))
  out = augment.create('flip')(many_keys(1000), images)
  plain = augment.create('none')(many_keys(1000), images)
  mirrored = (out == plain[:, :, ::-1]).all(axis=(1, 2, 3))
  assert (mirrored | (out == plain).all(axis=(1, 2, 3))).all()
  assert_frequency(mirrored, 0.5)


def test_policies_without_strength_only_normalise():
  images = random_images(3, 7, 6, 3)
  mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
  expected = (images / 255.0 - np.array(mean)) / np.array(std)
  for policy in (
    augment.create('none', mean=mean, std=std),
    augment.create('digits', mean=mean, std=std, **NO_STRENGTH),
    augment.create('gray', mean=mean, std=std, **GRAY_UNCHANGED),
  ):
    np.testing.assert_allclose(policy(many_keys(3), images), expected, atol=1e-5)
  imagenet = augment.create('none')(many_keys(3), images)
  expected = (images / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(imagenet, expected, atol=1e-5)


def test_gain_is_uniform():
  gain = lambda rng: augment.random_gain(rng, jnp.ones((2, 2, 1)), strength=0.3)
  out = np.asarray(jax.vmap(gain)(many_keys(1000)))
  assert (np.ptp(out, axis=(1, 2, 3)) == 0).all()
  assert_uniform(out[:, 0, 0, 0], 0.7, 1.3)


def test_gain_and_noise_of_digits():
  policy = augment.create(
    'digits',
    **NO_STRENGTH | {'gain': 0.3, 'noise': 0.05, 'mean': (0.0,), 'std': (1.0,)},
  )
  images = np.zeros((1000, 8, 8, 1), np.uint8)
  black = np.asarray(policy(many_keys(1000), images))
  assert stats.kstest(black.ravel() / 0.05, 'norm').pvalue > 1e-3
  # On flat images the mean of an image is its gain and almost no noise.
  flat = np.asarray(policy(many_keys(1000), images + np.uint8(51))) / 0.2
  np.testing.assert_allclose(flat.mean(axis=(1, 2, 3)).std(), 0.3 / 3**0.5, rtol=0.06)


def test_strengths_and_probabilities_of_gray():
  # Flat but for a step between its halves, bright enough for a gain of 0.3.
  images = np.full((2000, 20, 28, 1), 102, np.uint8)
  images[:, :, 14:] = 153
  unscaled = {'mean': (0.0,), 'std': (1.0,)}
  create = lambda **settings: augment.create(
    'gray', **GRAY_UNCHANGED | unscaled | settings
  )
  look = lambda **settings: np.asarray(create(**settings)(many_keys(2000), images))
  left, right = (look(gain=0.3)[:, 10, column, 0] for column in (5, 22))
  np.testing.assert_allclose(right, 1.5 * left, rtol=1e-5)
  assert_uniform(left / 0.4, 0.7, 1.3)
  left, right = (look(contrast=0.5)[:, 10, column, 0] for column in (5, 22))
  np.testing.assert_allclose(left + right, 1.0, rtol=1e-5)
  assert_uniform((right - left) / 0.2, 0.5, 1.5)
  flipped = look(flips=0.3)
  assert_frequency(flipped[:, 10, 5, 0] > 0.5, 0.3)
  assert_frequency((look(erase=0.4) == 0).any(axis=(1, 2, 3)), 0.4 * _seen_share())
  blurred = look(blur=0.6)[:, 10, 13, 0] > 0.4001
  assert_frequency(blurred, 0.6 * (2.0 - 0.25) / (2.0 - 0.1))


def _seen_share():
  """Share of the rectangles of `random_erase` that cover the centre of a pixel."""
  erase = lambda rng: augment.random_erase(
    rng, jnp.ones((20, 28, 1)), area=0.2, aspect=3.0
  )
  return (
    (np.asarray(jax.vmap(erase)(many_keys(4000, view=1))) == 0).any((1, 2, 3)).mean()
  )


@pytest.mark.parametrize('channels', [1, 3])
def test_gray_view_is_in_range(channels):
  mean, std = (0.0,) * channels, (1.0,) * channels
  images = random_images(64, 28, 28, channels)
  out = augment.create('gray', mean=mean, std=std)(many_keys(64), images)
  assert (out.shape, out.dtype) == (images.shape, jnp.float32)
  assert np.all((np.asarray(out) >= 0) & (np.asarray(out) <= 1 + 1e-6))
  assert np.abs(np.asarray(out) - images / 255).max(axis=(1, 2, 3)).min() > 0.1


@pytest.fixture(scope='module')
def view2():
  return augment.create('byol_view2', **UNSCALED)


def test_view_of_any_image_is_finite_and_in_range(view2):
  @many
  @hypothesis.given(rgb_images, st.integers(0, 2**31 - 1))
  def check(image, seed):
    index = jnp.arange(8, dtype=jnp.uint32) + jnp.uint32(seed)
    rngs = augment.keys(jax.random.key(0), index, 0)
    out = view2(rngs, np.broadcast_to(image, (8, *image.shape)))
    assert out.dtype == jnp.float32
    assert out.shape == (8, 4, 5, 3)
    assert np.all((np.asarray(out) >= 0) & (np.asarray(out) <= 1))

  check()


def test_policy_refuses_float_images():
  with pytest.raises(AssertionError, match='uint8'):
    augment.create('none')(many_keys(2), np.zeros((2, 4, 4, 3), np.float32))


def test_an_image_looks_the_same_in_any_batch():
  policy, seed_key = augment.create('digits'), jax.random.key(3)
  index, images = np.arange(100, 108), random_images(8, 8, 8, 1)
  look = lambda part: policy(augment.keys(seed_key, index[part], 0), images[part])
  whole = look(slice(None))
  for part in (slice(0, 4), slice(4, 8)):
    np.testing.assert_allclose(look(part), whole[part], atol=1e-5)


def test_an_image_looks_the_same_on_any_number_of_devices(view2):
  seed_key = jax.random.key(3)
  index, images = np.arange(100, 108), random_images(8, 20, 22, 3)
  look = lambda index, images: view2(augment.keys(seed_key, index, 1), images)
  whole = look(index, images)
  for count in (1, 4):
    devices = jax.devices()[:count]
    shares = [array.reshape(count, -1, *array.shape[1:]) for array in (index, images)]
    out = jax.pmap(look, devices=devices)(*shares)
    np.testing.assert_allclose(out.reshape(whole.shape), whole, atol=1e-5)


def test_views_and_images_get_different_augmentations(view2):
  images = np.broadcast_to(random_images(1, 4, 5, 3), (8, 4, 5, 3))
  looks = np.concatenate([view2(many_keys(8, view), images) for view in (0, 1)])
  distance = np.abs(looks[:, None] - looks[None]).max(axis=(2, 3, 4))
  # Two looks are alike where neither was jittered, and the rest agrees by chance.
  assert np.mean(distance[np.triu_indices(16, k=1)] > 0.01) > 0.9
