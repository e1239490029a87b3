"""The ResNet against PyTorch.

The golden values were computed once with the layers of torch.nn (PyTorch 2.13.0) by
tests/data/make_resnet_golden.py; PyTorch is not needed here.
"""

import functools
import itertools
import pathlib
import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslhsic import networks

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'data' / 'resnet_golden.npz')
SHAPES = {
  'bottleneck': {
    'blocks_per_group': (1, 1, 2),
    'channels_per_group': (16, 24, 32),
    'bottleneck': True,
  },
  'basic': {
    'blocks_per_group': (1, 1, 2),
    'channels_per_group': (8, 12, 16),
    'bottleneck': False,
    'stem': 'small',
  },
}
TOTAL_STRIDES = {'bottleneck': 16, 'basic': 4}
SIZES = [('bottleneck', 'even'), ('bottleneck', 'odd'), ('basic', 'tiny')]


def transformed(create, *, is_training=True):
  return hk.without_apply_rng(
    hk.transform_with_state(lambda x: create()(x, is_training=is_training))
  )


MODULE = re.compile(
  r'resnet/(?:group_(\d)/block_(\d)/)?(stem|shortcut)?_?(conv|batchnorm)_?(\d?)'
)


def torch_name(module, name):
  """Name in torchvision of a Haiku parameter or batch statistic."""
  group, block, role, kind, index = MODULE.match(module).groups()
  prefix = f'layer{int(group) + 1}.{block}.' if group else ''
  if role == 'shortcut':
    layer = 'downsample.' + {'conv': '0', 'batchnorm': '1'}[kind]
  else:
    layer = {'conv': 'conv', 'batchnorm': 'bn'}[kind] + str(int(index or 0) + 1)
  if name == 'average':
    attribute = 'running_mean' if module.endswith('mean_ema') else 'running_var'
  else:
    attribute = {'w': 'weight', 'scale': 'weight', 'offset': 'bias'}[name]
  return f'{prefix}{layer}.{attribute}'


def from_torch(tree, network):
  """Replaces parameters or batch statistics by those of a PyTorch network."""

  def convert(module, name, value):
    if name in ('hidden', 'counter'):
      return value
    stored = GOLDEN[f'{network}/weights/{torch_name(module, name)}']
    stored = stored.transpose(2, 3, 1, 0) if stored.ndim == 4 else stored
    return jnp.asarray(stored.reshape(value.shape))

  return hk.data_structures.map(convert, tree)


@functools.cache
def golden_weights(network):
  """Parameters and batch statistics of a PyTorch network."""
  forward = transformed(lambda: networks.ResNet(**SHAPES[network]))
  images = GOLDEN[f'images/{dict(SIZES)[network]}']
  shapes = jax.eval_shape(forward.init, jax.random.key(0), images)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  return tuple(from_torch(tree, network) for tree in zeros)


@functools.cache
def evaluated(network, size, num_dilated):
  """Features of a golden network in evaluation mode."""
  output_stride = TOTAL_STRIDES[network] // 2**num_dilated
  forward = transformed(
    lambda: networks.ResNet(**SHAPES[network], output_stride=output_stride),
    is_training=False,
  )
  images = GOLDEN[f'images/{size}']
  features, _ = jax.jit(forward.apply)(*golden_weights(network), images)
  return features


def assert_close(actual, expected, tolerance=1e-5):
  """Compares to within a part of the largest value expected."""
  atol = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize('network', SHAPES)
def test_every_weight_of_pytorch_has_one_name(network):
  names = {
    torch_name(module, name)
    for tree in golden_weights(network)
    for module, name, _ in hk.data_structures.traverse(tree)
    if name not in ('hidden', 'counter')
  }
  prefix = f'{network}/weights/'
  assert names == {n.removeprefix(prefix) for n in GOLDEN if n.startswith(prefix)}


@pytest.mark.parametrize('num_dilated', [0, 1, 2])
@pytest.mark.parametrize(('network', 'size'), SIZES)
def test_evaluation_equals_pytorch(network, size, num_dilated):
  features = evaluated(network, size, num_dilated)
  expected = GOLDEN[f'{network}/{size}/dilated{num_dilated}/eval']
  assert_close(features.stages[-1], expected)
  assert_close(features.embedding, expected.mean(axis=(1, 2)))


@pytest.mark.parametrize(('network', 'size'), SIZES[1:])
def test_training_equals_pytorch(network, size):
  forward = transformed(lambda: networks.ResNet(**SHAPES[network]))
  params, state = golden_weights(network)

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def gradient(params):
    features, _ = forward.apply(params, state, GOLDEN[f'images/{size}'])
    embedding = features.embedding
    weights = jnp.linspace(-1, 1, embedding.size).reshape(embedding.shape)
    return jnp.sum(weights * embedding), features.stages[-1]

  gradients, stage = gradient(params)
  stem = gradients['resnet/stem_conv']['w'].transpose(3, 2, 0, 1)
  assert_close(stage, GOLDEN[f'{network}/{size}/train'], 1e-4)
  assert_close(stem, GOLDEN[f'{network}/{size}/gradient'], 1e-4)


@pytest.mark.parametrize('num_dilated', [1, 2])
@pytest.mark.parametrize(('network', 'size'), SIZES)
def test_dilation_refines_the_grid(network, size, num_dilated):
  coarse = evaluated(network, size, 0).stages[-1]
  fine = evaluated(network, size, num_dilated).stages[-1]
  assert fine.shape[1] > coarse.shape[1]
  step = 2**num_dilated
  assert_close(fine[:, ::step, ::step], coarse)


def convolved(x, w, dilation):
  """A 3×3 or 1×1 convolution [h, w, c] in NumPy, with zeros around the map."""
  side = w.shape[0]
  pad = dilation * (side // 2)
  padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  height, width, _ = x.shape
  taps = itertools.product(range(side), repeat=2)
  return sum(
    padded[dilation * i :, dilation * j :][:height, :width] @ w[i, j] for i, j in taps
  )


@pytest.mark.parametrize('network', SHAPES)
def test_all_convolutions_of_a_group_may_be_dilated(network):
  """The last group in NumPy, on its input by the golden network."""
  params, state = jax.tree.map(np.float64, golden_weights(network))
  bottleneck = SHAPES[network]['bottleneck']

  def normalised(x, name):
    mean, var = (
      state[f'{name}/~/{kind}']['average'].ravel() for kind in ('mean_ema', 'var_ema')
    )
    scale, offset = (params[name][key].ravel() for key in ('scale', 'offset'))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + offset

  def layer(x, block, name, dilation=2):
    prefix = f'resnet/group_2/block_{block}/'
    x = convolved(x, params[f'{prefix}{name.format("conv")}']['w'], dilation)
    return normalised(x, f'{prefix}{name.format("batchnorm")}')

  output_stride = TOTAL_STRIDES[network] // 2
  options = {**SHAPES[network], 'output_stride': output_stride}
  forward = transformed(
    lambda: networks.ResNet(**options, dilate_first_block=True), is_training=False
  )
  images = GOLDEN[f'images/{dict(SIZES)[network]}']
  features, _ = jax.jit(forward.apply)(*golden_weights(network), images)
  for x, found in zip(*map(np.float64, features.stages[1:]), strict=True):
    expected = x
    for block in range(2):
      shortcut = layer(expected, block, 'shortcut_{}') if block == 0 else expected
      for i in range(3 if bottleneck else 2):
        expected = np.maximum(expected, 0) if i else expected
        expected = layer(expected, block, f'{{}}_{i}')
      expected = np.maximum(expected + shortcut, 0)
    assert_close(found, expected)


@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.parametrize('network', SHAPES)
def test_padding_is_not_seen(network, is_training):
  """Neither its pixels nor its size, by features, embedding and statistics."""
  rng = np.random.default_rng(0)
  forward = transformed(
    lambda: networks.ResNet(**SHAPES[network]), is_training=is_training
  )
  values = golden_weights(network)
  images = rng.normal(size=(2, 21, 38, 3)).astype(np.float32)
  expected, state = jax.jit(forward.apply)(*values, images)

  def padded(images, content):
    network_ = lambda x: networks.ResNet(**SHAPES[network])(
      x, is_training=is_training, content=content
    )
    made = hk.without_apply_rng(hk.transform_with_state(network_))
    return made.apply(*values, images)

  canvas = rng.normal(50, 9, (2, 40, 43, 3)).astype(np.float32)
  canvas[:, :21, :38] = images
  found, state_after = jax.jit(padded)(canvas, np.full((2, 2), [21, 38], np.int32))
  for x, y in zip(found.stages, expected.stages, strict=True):
    height, width = y.shape[1:3]
    assert_close(x[:, :height, :width], y)
    assert not np.any(x[:, height:])
    assert not np.any(x[:, :, width:])
  assert_close(found.embedding, expected.embedding)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, state_after, state)


# Trainable parameters of torchvision's models less those of their classifiers.
@pytest.mark.parametrize(
  ('preset', 'count'),
  [
    ('resnet18', 11_176_512),
    ('resnet34', 21_284_672),
    ('resnet50', 23_508_032),
    ('resnet101', 42_500_160),
    ('resnet152', 58_143_808),
  ],
)
def test_parameter_count_is_torchvisions(preset, count):
  params, _ = shapes_of_weights(preset)
  assert hk.data_structures.tree_size(params) == count


def test_first_shortcut_is_projected_as_in_haiku():
  params, _ = shapes_of_weights('resnet18', project_first_shortcut=True)
  assert params['encoder/group_0/block_0/shortcut_conv']['w'].shape == (1, 1, 64, 64)
  # hk.nets.ResNet18 without its classifier.
  assert hk.data_structures.tree_size(params) == 11_180_736
  of_bottlenecks = [
    shapes_of_weights('resnet50', project_first_shortcut=x) for x in (False, True)
  ]
  assert of_bottlenecks[0] == of_bottlenecks[1]


def shapes_of_weights(preset, *, image=(224, 224, 3), dtype=jnp.float32, **overrides):
  forward = transformed(lambda: networks.create(preset, **overrides))
  images = jax.ShapeDtypeStruct((2, *image), dtype)
  return jax.eval_shape(forward.init, jax.random.key(0), images)


def shapes_of_features(preset, *, image=(224, 224, 3), dtype=jnp.float32, **overrides):
  forward = transformed(lambda: networks.create(preset, **overrides))
  weights = shapes_of_weights(preset, image=image, dtype=dtype, **overrides)
  images = jax.ShapeDtypeStruct((2, *image), dtype)
  features, _ = jax.eval_shape(forward.apply, *weights, images)
  return features


@pytest.mark.parametrize(
  ('output_stride', 'sides'),
  [
    (None, (56, 28, 14, 7)),
    (32, (56, 28, 14, 7)),
    (16, (56, 28, 14, 14)),
    (8, (56, 28, 28, 28)),
  ],
)
def test_shapes_of_stages(output_stride, sides):
  features = shapes_of_features('resnet50', output_stride=output_stride)
  expected = [(2, s, s, c) for s, c in zip(sides, (256, 512, 1024, 2048), strict=True)]
  assert [stage.shape for stage in features.stages] == expected
  assert features.embedding.shape == (2, 2048)


def test_width_multiplies_every_layer():
  narrow, _ = shapes_of_weights('resnet18', stem='small', image=(32, 32, 3))
  wide, _ = shapes_of_weights('resnet18', stem='small', image=(32, 32, 3), width=2)
  for module, name, value in hk.data_structures.traverse(narrow):
    *kernel, inputs, outputs = value.shape
    from_images = module == 'encoder/stem_conv'
    widened = inputs if inputs == 1 or from_images else 2 * inputs
    assert wide[module][name].shape == (*kernel, widened, 2 * outputs)


THREE_GROUPS = {'blocks_per_group': (1, 1, 1), 'channels_per_group': (8, 8, 16)}


def test_small_stem_keeps_the_resolution():
  features = shapes_of_features('resnet_digits', image=(8, 8, 1), **THREE_GROUPS)
  sides = [stage.shape[1:3] for stage in features.stages]
  assert sides == [(8, 8), (4, 4), (2, 2)]


def test_computes_in_the_type_of_the_images():
  features = shapes_of_features('resnet_digits', image=(8, 8, 1), dtype=jnp.bfloat16)
  assert {stage.dtype for stage in features.stages} == {jnp.dtype(jnp.bfloat16)}
  assert features.embedding.dtype == jnp.float32


@pytest.mark.parametrize('bottleneck', [False, True])
@pytest.mark.parametrize('zero_init', [None, False, True])
def test_initial_values(bottleneck, zero_init):
  # Alike blocks: JAX compiles one initialiser for every shape.
  forward = transformed(
    lambda: networks.ResNet(
      blocks_per_group=(2,),
      channels_per_group=(128 if bottleneck else 32,),
      bottleneck=bottleneck,
      stem='small',
      zero_init_last_scale=zero_init,
    )
  )
  params, _ = forward.init(jax.random.key(0), jnp.zeros((2, 4, 4, 32)))
  is_zeroed = bottleneck if zero_init is None else zero_init
  last = 'batchnorm_2' if bottleneck else 'batchnorm_1'
  for module, name, value in hk.data_structures.traverse(params):
    if name == 'w':
      # Truncated at two standard deviations of 1/√fan_in, which leaves 0.8796 of one.
      scaled = np.asarray(value) * np.sqrt(np.prod(value.shape[:-1]))
      assert np.abs(scaled).max() <= 2
      np.testing.assert_allclose(scaled.std(), 0.8796, rtol=0.03)
    else:
      is_zero = name == 'offset' or (is_zeroed and module.endswith(last))
      np.testing.assert_array_equal(value, 0.0 if is_zero else 1.0)


def test_two_calls_share_the_weights():
  def two_views(images):
    network = networks.ResNet(**SHAPES['basic'])
    first = network(images, is_training=True).embedding
    return first, network(images, is_training=True).embedding

  forward = hk.without_apply_rng(hk.transform_with_state(two_views))
  params, state = golden_weights('basic')
  images = GOLDEN['images/tiny']
  initial, _ = jax.eval_shape(forward.init, jax.random.key(0), images)
  assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, params)
  (first, second), state = jax.jit(forward.apply)(params, state, images)
  np.testing.assert_array_equal(first, second)
  assert state['resnet/stem_batchnorm/~/mean_ema']['counter'] == 2


def test_four_devices_equal_one():
  def network(axis_name):
    shape = {'blocks_per_group': (1, 1), 'channels_per_group': (4, 6)}
    return transformed(
      lambda: networks.ResNet(
        **shape, bottleneck=False, stem='small', axis_name=axis_name
      )
    )

  random = np.random.default_rng(0)
  images = jnp.asarray(random.normal(size=(8, 5, 5, 3)), jnp.float32)
  params, state = jax.eval_shape(network(None).init, jax.random.key(0), images)
  draw = lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32)
  params = jax.tree.map(draw, params)
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

  def step(axis_name, params, images):
    def loss(params):
      features, new_state = network(axis_name).apply(params, state, images)
      return jnp.mean(jnp.sin(features.embedding)), (features.embedding, new_state)

    gradients, (embedding, new_state) = jax.grad(loss, has_aux=True)(params)
    if axis_name:
      gradients = jax.lax.pmean(gradients, axis_name)
    return embedding, (gradients, new_state)

  embedding, replicated = jax.jit(functools.partial(step, None))(params, images)
  sharded_embedding, sharded = jax.pmap(
    functools.partial(step, 'i'),
    axis_name='i',
    in_axes=(None, 0),
    devices=jax.devices()[:4],
  )(params, images.reshape(4, 2, *images.shape[1:]))
  assert_close(sharded_embedding.reshape(embedding.shape), embedding)
  last_device = jax.tree.map(lambda x: x[3], sharded)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, last_device, replicated)


def test_shortcut_is_projected_where_the_shape_changes():
  params, _ = shapes_of_weights('resnet_digits', image=(8, 8, 1), **THREE_GROUPS)
  projected = {module for module in params if module.endswith('shortcut_conv')}
  assert projected == {
    'encoder/group_1/block_0/shortcut_conv',
    'encoder/group_2/block_0/shortcut_conv',
  }


@pytest.mark.parametrize('output_stride', [16, 8])
def test_dilation_changes_no_parameter(output_stride):
  """Also of groups that keep the channels: an encoder fits whatever its stride."""

  def shapes(**options):
    def apply(images):
      network = networks.ResNet(
        blocks_per_group=(1, 1, 1, 1),
        channels_per_group=(4, 4, 4, 4),
        bottleneck=False,
        **options,
      )
      return network(images, is_training=True).embedding

    init = hk.transform_with_state(apply).init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

  assert shapes(output_stride=output_stride) == shapes()


def test_initialisation_needs_no_device_axis():
  forward = transformed(lambda: networks.create('resnet_digits', axis_name='i'))
  images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
  params, _ = jax.eval_shape(forward.init, jax.random.key(0), images)
  assert params['encoder/stem_conv']['w'].shape == (3, 3, 1, 32)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'stem': 'large'}, r"unknown stem 'large'; use one of \['imagenet', 'small'\]"),
    ({'output_stride': 4}, r'output stride 4 .* use one of \[32, 16, 8\]'),
    ({'output_stride': 32, 'stem': 'small'}, r'use one of \[8, 4, 2\]'),
    ({'blocks_per_group': (1, 1)}, '2 groups of blocks but 4 of channels'),
  ],
)
def test_refuses_what_cannot_be_built(overrides, message):
  with pytest.raises(ValueError, match=message):
    shapes_of_weights('resnet18', **overrides)


def test_refuses_integer_images():
  with pytest.raises(AssertionError, match='uint8'):
    shapes_of_weights('resnet18', dtype=jnp.uint8)
