"""The registry of encoders, and an encoder of another kind wherever encoders go.

It has patches, layer norm and no batch statistics, and is registered here alone.
"""

import types

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sslhsic
from configs.finetune import digits_1pct
from configs.pretrain import digits
from configs.segmentation import shapes
from experiments import finetune, pretrain
from experiments import segmentation as segmentation_program
from sslhsic import networks
from sslhsic.networks import classifier
from sslhsic.pretraining import model
from sslhsic.runs import runner
from sslhsic.tasks.detection import detector, settings
from sslhsic.tasks.segmentation import network as segmentation
from sslhsic.weights import export, families, files, pretrained
from tests.weights.exports import facts


class PatchEncoder(networks.Encoder):
  """Patches, a residual layer on each, and their mean."""

  norm_name = 'layernorm'
  has_batch_statistics = False

  def __init__(self, *, patch_size, channels, axis_name=None, name='patch_encoder'):
    super().__init__(name=name)
    del axis_name  # There are no batch statistics.
    self.channels = channels
    self.stage_strides = (patch_size,)
    self.output_stride = patch_size

  def __call__(self, images, *, is_training):
    del is_training
    size = self.output_stride
    embed = hk.Conv2D(self.channels, size, size, padding='VALID', name='embed')
    tokens = embed(images)
    norm = hk.LayerNorm(-1, create_scale=True, create_offset=True, name='layernorm')
    with jax.numpy_dtype_promotion('standard'):
      hidden = norm(tokens)
    tokens += jax.nn.relu(hk.Linear(self.channels, name='linear')(hidden))
    return networks.Features((tokens,), tokens.mean(axis=(1, 2), dtype=jnp.float32))


def _embed_in_numpy(params, images):
  """The embedding of `PatchEncoder`, in float64."""

  def values(module):
    leaves = params[f'encoder/{module}']
    return types.SimpleNamespace(**{x: np.float64(leaves[x]) for x in leaves})

  embed, norm, linear = (values(module) for module in ('embed', 'layernorm', 'linear'))
  n, height, width, c = images.shape
  size = len(embed.w)
  patches = images.reshape(n, height // size, size, width // size, size, c)
  tokens = np.einsum('nhiwjc,ijcd->nhwd', patches, embed.w) + embed.b
  centred = tokens - tokens.mean(axis=-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
  hidden = scaled * norm.scale + norm.offset
  tokens = tokens + np.maximum(hidden @ linear.w + linear.b, 0)
  return tokens.mean(axis=(1, 2))


@pytest.fixture(scope='module', autouse=True)
def _registered():
  preset = networks.Preset(PatchEncoder, {'patch_size': 4, 'channels': 6})
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(networks.ENCODERS, 'patches', preset)
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Working directory of a pre-training of two steps, and its experiment at the end."""
  config = digits.get_config()
  config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
  config.training.update(batch_size=16, epochs=1, warmup_epochs=0)
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.data.train_split = 'train[:32]'
  config.network.update(
    encoder='patches',
    encoder_options={'patch_size': 2},
    head={'hidden_size': 16, 'output_size': 8},
  )
  workdir = tmp_path_factory.mktemp('run')
  made = runner.Runner(pretrain.Pretrain, config, workdir, 'train')
  made.run()
  return workdir, made._experiment


def test_pretraining_changes_every_parameter_of_the_encoder(run):
  workdir, experiment = run
  before = jax.device_get(experiment._initial_state().params)
  after = jax.device_get(experiment.state)
  encoder = {module for module in before if module.startswith('encoder/')}
  assert encoder == {'encoder/embed', 'encoder/layernorm', 'encoder/linear'}
  for module in encoder:
    for name, value in before[module].items():
      assert np.all(np.isfinite(after.params[module][name]))
      assert not np.array_equal(after.params[module][name], value)
  assert not any(module.startswith('encoder') for module in after.network_state)
  assert (workdir / 'checkpoints' / '2').is_dir()


def test_a_run_and_its_export_embed_as_numpy_does(run, tmp_path):
  workdir, _ = run
  saved = pretrained.read_run(str(workdir))
  images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
  expected = _embed_in_numpy(saved.averaged, images)
  network = export.Network(saved.averaged, saved.network_state, with_projector=True)
  export.write(tmp_path / 'out', 'haiku', network, saved.settings, facts())
  for init_from in (workdir, tmp_path / 'out'):
    found = sslhsic.load(init_from)(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_formats_that_an_encoder_does_not_have_are_refused(run, tmp_path):
  saved = pretrained.read_run(str(run[0]))
  network = export.Network(saved.averaged, saved.network_state, with_projector=False)
  message = r"patches has no layout for the format 'timm'; use --format=haiku"
  with pytest.raises(ValueError, match=message):
    export.write(tmp_path / 'out', 'timm', network, saved.settings, facts())
  assert not families.of('patches').layouts


def test_file_that_does_not_say_which_network_it_is(run, tmp_path):
  saved = pretrained.read_run(str(run[0]))
  encoder = {m: x for m, x in saved.averaged.items() if m.startswith('encoder/')}
  tensors = {f'{m}/{n}': x for m, v in encoder.items() for n, x in v.items()}
  path = tmp_path / 'model.safetensors'
  files.safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match='does not say which network it is; only files'):
    files.read(path).known_settings  # noqa: B018
  options = {'encoder': 'patches', 'encoder_options': {'patch_size': 2}}
  network = classifier.encoder(**options)
  initial = network.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)), True)
  start = pretrained.load(str(path), *initial, **options, mean=(0.5,), std=(0.2,))
  jax.tree.map(np.testing.assert_array_equal, start.params, encoder)


def test_fine_tuning_has_no_statistics_to_shorten(run):
  config = digits_1pct.get_config()
  config.init_from = str(run[0])
  config.network.update(encoder='patches', encoder_options={'patch_size': 2})
  config.training.update(batch_size=8, short_batch_norm=True)
  config.evaluation.batch_size = 8
  experiment = finetune.FineTune('train', jax.random.key(0), config)
  scalars = experiment.step(0, jax.random.key(0))
  assert np.isfinite(jax.device_get(scalars['loss']))


# Networks of other tasks


def test_segmentation_trains_the_encoder_at_the_resolution_of_the_image():
  network = segmentation.create(
    encoder='patches',
    encoder_options={},
    freeze_batch_norm=False,
    num_classes=5,
    channels=4,
    dilation=1,
  )
  images = jax.random.normal(jax.random.key(0), (2, 12, 8, 3))
  params, state = network.init(jax.random.key(1), images, True)

  def loss(params):
    logits, _ = network.apply(params, state, None, images, True)
    return jnp.sum(jnp.sin(logits)), logits

  gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
  assert logits.shape == (2, 12, 8, 5)
  of_encoder = [x for name, x in gradients.items() if name.startswith('encoder/')]
  assert all(np.any(x != 0) for x in jax.tree.leaves(of_encoder))


def test_batch_norm_that_is_not_there_cannot_be_frozen():
  config = shapes.get_config()
  config.init_from = 'a run'
  config.network.update(encoder='patches', encoder_options={})
  config.training.update(batch_size=8, freeze_batch_norm=True)
  config.evaluation.batch_size = 8
  message = r'patches has no batch norm to freeze; set config\.training\.freeze_batch'
  with pytest.raises(ValueError, match=message):
    segmentation_program.Segmentation('train', jax.random.key(0), config)


def test_detector_names_the_encoders_that_run_in_two_parts(monkeypatch):
  class LeavesPaddingOut(PatchEncoder):
    def __call__(self, images, *, is_training, content=None):
      raise NotImplementedError

  preset = networks.Preset(LeavesPaddingOut, {'patch_size': 4, 'channels': 6})
  monkeypatch.setitem(networks.ENCODERS, 'patches', preset)
  message = (
    r"detector 'c4' .* patches cannot; use config\.network\.architecture = 'fpn', or "
    r'an encoder of resnet18, .*, resnet_digits$'
  )
  with pytest.raises(ValueError, match=message):
    detector.create(
      architecture='c4',
      encoder='patches',
      encoder_options={},
      train_encoder=True,
      freeze_batch_norm=False,
      num_classes=2,
      with_masks=False,
      settings=settings.PRESETS['c4_detectron2'],
    )


@pytest.mark.parametrize('architecture', detector.ARCHITECTURES)
def test_detector_needs_an_encoder_that_leaves_out_padding(architecture):
  message = 'vit_s16 has no argument content to leave .* another, such as resnet18'
  with pytest.raises(ValueError, match=message):
    detector.create(
      architecture=architecture,
      encoder='vit_s16',
      encoder_options={},
      train_encoder=True,
      freeze_batch_norm=False,
      num_classes=2,
      with_masks=False,
      settings=settings.PRESETS['fpn_torchvision'],
    )


def test_layer_norm_computes_in_float32_between_products_in_bfloat16():
  online = model.create(
    encoder='patches',
    encoder_options={},
    head={'hidden_size': 16, 'output_size': 8},
    with_target=False,
    num_classes=0,
    precision='bfloat16',
  ).online
  # Tokens of mean 64: in bfloat16 their deviations would be lost.
  images = 8 + jax.random.normal(jax.random.key(0), (2, 8, 8, 1)) / 8
  params, state = online.init(jax.random.key(1), images, True)
  program = jax.make_jaxpr(
    lambda params: online.apply(params, state, None, images, True)[0].embedding
  )(params)
  products = [
    {str(x.aval.dtype) for x in equation.invars}
    for equation in program.eqns
    if equation.primitive.name in ('conv_general_dilated', 'dot_general')
  ]
  assert products == [{'bfloat16'}] * len(products)
  roots = [e for e in program.eqns if e.primitive.name == 'rsqrt']
  assert {str(x.aval.dtype) for e in roots for x in e.invars} == {'float32'}


# The registry


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    (
      'resnet51',
      {},
      r"unknown config\.network\.encoder 'resnet51'; did you mean 'resnet50'.* "
      r'use one of resnet18, .*, patches$',
    ),
    ('xyz', {}, r"unknown config\.network\.encoder 'xyz'; use one of resnet18, "),
    (
      'resnet18',
      {'stemm': 'small'},
      r"resnet18 has no setting 'stemm'; did you mean 'stem'\? use one "
      r'of batch_norm_decay, blocks_per_group, .*, width, zero_init_last_scale$',
    ),
    (
      'patches',
      {'width': 2},
      r"patches has no setting 'width'; use one of channels, patch_size$",
    ),
  ],
)
def test_unknown_names_are_refused_with_the_nearest(name, options, message):
  network = classifier.encoder(encoder=name, encoder_options=options)
  with pytest.raises(ValueError, match=message):
    network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), True)


@pytest.mark.parametrize('name', ['resnet18', 'resnet_digits', 'vit_digits', 'patches'])
def test_encoders_are_as_they_say(name):
  """Strides are those of the stages; normalisation and state have the names given."""
  strides = []

  def forward(images):
    network = networks.create(name)
    features = network(images, is_training=True)
    strides.append(network.stage_strides)
    assert network.output_stride == network.stage_strides[-1]
    return features

  network = hk.without_apply_rng(hk.transform_with_state(forward))
  images = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
  params, state = jax.eval_shape(network.init, jax.random.key(0), images)
  features, _ = jax.eval_shape(network.apply, params, state, images)
  shapes = [(2, 64 // stride, 32 // stride) for stride in strides[0]]
  assert [stage.shape[:3] for stage in features.stages] == shapes
  kind = networks.class_of(name)
  scaled = {module for module, values in params.items() if 'scale' in values}
  assert scaled == {module for module in params if kind.is_normalisation(module)}
  assert bool(state) == kind.has_batch_statistics
