"""Vision Transformers in the layouts of timm and Hugging Face, and in ours."""

import functools
import json
import pathlib

import haiku as hk
import jax
import numpy as np
import pytest
import safetensors.numpy

import sslhsic
from sslhsic import networks
from sslhsic.networks import classifier, vit
from sslhsic.weights import export, families, files, layouts, pretrained
from sslhsic.weights import vit as layouts_of_vit
from tests.weights.exports import IMAGENET, facts, settings_of

DATA = pathlib.Path(__file__).resolve().parents[1] / 'data'
TINY = {'width': 64, 'depth': 2, 'num_heads': 1, 'patch_size': 8, 'image_size': 32}
KINDS = {
  'vit': {},
  'vit_registers': {'num_registers': 2},
  'vit_mean': {'pooling': 'mean'},
}
LIBRARIES = [
  ('timm', 'vit'),
  ('timm', 'vit_registers'),
  ('timm', 'vit_mean'),
  ('huggingface', 'vit'),
]
LAYOUTS = {'timm': layouts_of_vit.TIMM, 'huggingface': layouts_of_vit.HUGGINGFACE}


@pytest.fixture(scope='module')
def trees(random_encoder):
  """A function of options: the parameters and, empty, the state of a small ViT."""
  cached = functools.cache(
    lambda options: random_encoder('vit_s16', **TINY, **dict(options))
  )
  return lambda **options: cached(tuple(options.items()))


def _export(directory, format_name, trees, crop_size=32, **options):
  network = export.Network(*trees(**options), with_projector=False)
  settings = settings_of('vit_s16', crop_size=crop_size, options=TINY | options)
  export.write(directory, format_name, network, settings, facts())
  return safetensors.numpy.load_file(directory / 'model.safetensors')


def _load(path, params, state, **changes):
  options = {'encoder': 'vit_s16', 'encoder_options': TINY, **IMAGENET, **changes}
  return pretrained.load(str(path), params, state, **options)


@pytest.mark.parametrize(('library', 'kind'), LIBRARIES)
def test_names_and_shapes_are_those_of_the_library(library, kind, trees):
  shapes = json.loads((DATA / 'state_dicts.json').read_text())[f'{library}/{kind}']
  tensors = layouts.to_tensors(LAYOUTS[library], *trees(**KINDS[kind]))
  assert {name: list(x.shape) for name, x in tensors.items()} == shapes


@pytest.mark.parametrize(('library', 'kind'), [('haiku', 'vit_registers'), *LIBRARIES])
def test_there_and_back_is_exact(library, kind, trees):
  params, _ = trees(**KINDS[kind])
  layout = LAYOUTS.get(library, layouts_of_vit.HAIKU)
  tensors = layouts.to_tensors(layout, params)
  assert families.detect(tensors) == (layout, '')
  again = layouts.from_tensors(layout, tensors, params)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  found = layout.infer(tensors)
  network = classifier.encoder(encoder=found.encoder, encoder_options=found.options)
  images = jax.ShapeDtypeStruct((1, 32, 32, found.num_channels), 'float32')
  init = lambda rng, images: network.init(rng, images, True)[0]
  expected = jax.eval_shape(init, jax.random.key(0), images)
  assert jax.tree.map(np.shape, dict(params)) == jax.tree.map(np.shape, expected)


def test_timm_has_positions_for_class_token_and_registers(trees):
  """Here they are a part of the tokens; models of 'no_embed_class' have none."""
  params, _ = trees(num_registers=2)
  tensors = layouts.to_tensors(layouts_of_vit.TIMM, params)
  assert not tensors['pos_embed'][0, :3].any()
  np.testing.assert_array_equal(
    tensors['pos_embed'][0, 3:].reshape(4, 4, 64), params['encoder']['positions']
  )
  read = lambda **x: layouts.from_tensors(layouts_of_vit.TIMM, tensors | x, params)
  of_tokens = np.arange(3 * 64, dtype=np.float32).reshape(1, 3, 64)
  moved = read(pos_embed=np.hstack([of_tokens, tensors['pos_embed'][:, 3:]]))['encoder']
  np.testing.assert_allclose(
    moved['class_token'], params['encoder']['class_token'] + of_tokens[0, :1]
  )
  np.testing.assert_allclose(
    moved['registers'], params['encoder']['registers'] + of_tokens[0, 1:]
  )
  np.testing.assert_array_equal(moved['positions'], params['encoder']['positions'])
  without = read(pos_embed=tensors['pos_embed'][:, 3:])
  jax.tree.map(np.testing.assert_array_equal, without, params)


def test_query_key_and_value_are_three_tensors_in_hugging_face(trees):
  params, _ = trees()
  tensors = layouts.to_tensors(layouts_of_vit.HUGGINGFACE, params)
  qkv = params['encoder/block_1/qkv']
  for number, name in enumerate(('query', 'key', 'value')):
    layer = f'encoder.layer.1.attention.attention.{name}'
    columns = slice(64 * number, 64 * number + 64)
    np.testing.assert_array_equal(tensors[f'{layer}.weight'].T, qkv['w'][:, columns])
    np.testing.assert_array_equal(tensors[f'{layer}.bias'], qkv['b'][columns])


def test_every_value_of_the_encoder_is_loaded(trees, tmp_path):
  """Class token and positions too, which are of no layer."""
  _export(tmp_path / 'out', 'haiku', trees)
  params, state = trees()
  network = classifier.encoder(encoder='vit_s16', encoder_options=TINY)
  images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
  np.testing.assert_allclose(
    sslhsic.load(tmp_path / 'out')(images),
    network.apply(params, state, None, images, False)[0],
    atol=1e-5,
  )
  fingerprints = set()
  for name in params['encoder']:
    changed = hk.data_structures.map(
      lambda module, n, x, name=name: x + (n == name and module == 'encoder'), params
    )
    fingerprints.add(pretrained.fingerprint(changed, state))
  assert len(fingerprints) == len(params['encoder'])


@pytest.mark.parametrize('library', ['timm', 'huggingface'])
def test_fixed_positions_are_those_of_the_images(library, trees, tmp_path):
  tensors = _export(tmp_path / 'a', library, trees, 48, positions='sincos')
  name = LAYOUTS[library].tensor('encoder', 'positions')
  assert tensors[name].shape == (1, 1 + 6 * 6, 64)
  table = vit.sincos_positions(6, 6, 64).reshape(36, 64)
  np.testing.assert_array_equal(tensors[name][0, 1:], table)
  assert not tensors[name][0, 0].any()
  # A file that does not say what its network is.
  path = tmp_path / 'b.safetensors'
  safetensors.numpy.save_file(tensors, path)
  assert files.read(path).known_settings.encoder_options['positions'] == 'sincos'
  params, state = trees(positions='sincos')
  zeros = jax.tree.map(np.zeros_like, params)
  start = _load(path, zeros, state)
  jax.tree.map(np.testing.assert_array_equal, start.params, params)
  # They are no fixed ones, once one differs.
  tensors[name][0, 5, 5] += 1
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match=f'the network has no {name}; set config'):
    _load(path, zeros, state)


def test_configuration_of_timm_has_every_argument(trees, tmp_path):
  _export(tmp_path / 'out', 'timm', trees, 48, pooling='mean', num_registers=2)
  config = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert config['architecture'] == 'vit_base_patch16_224'
  arguments = config['model_args']
  assert (arguments['global_pool'], arguments['class_token']) == ('avg', False)
  assert (arguments['img_size'], arguments['patch_size']) == (32, 8)
  assert (arguments['embed_dim'], arguments['reg_tokens']) == (64, 2)
  assert config['pretrained_cfg']['input_size'] == [3, 48, 48]


@pytest.mark.parametrize(
  ('format_name', 'crop_size', 'options', 'message'),
  [
    ('torchvision', 32, {}, r'no layout for .* use --format=timm or huggingface or h'),
    ('huggingface', 32, {'pooling': 'mean'}, "has pooling 'mean' and 0 registers; use"),
    ('huggingface', 32, {'num_registers': 2}, "has pooling 'class' and 2 registers"),
    ('huggingface', 48, {}, 'takes images of 32 px, .* this encoder saw 48 px; use'),
  ],
)
def test_networks_that_a_library_lacks_are_named(
  trees, tmp_path, format_name, crop_size, options, message
):
  with pytest.raises(ValueError, match=message):
    _export(tmp_path / 'out', format_name, trees, crop_size, **options)
  assert not (tmp_path / 'out').exists()


def test_files_of_other_transformers_are_named(trees, tmp_path):
  params, state = trees()
  tensors = layouts.to_tensors(layouts_of_vit.TIMM, params)
  path = tmp_path / 'other.safetensors'
  load = lambda: _load(path, params, state)
  scale = np.ones(64, np.float32)
  safetensors.numpy.save_file(tensors | {'blocks.0.ls1.gamma': scale}, path)
  with pytest.raises(ValueError, match=r'the network has no blocks\.0\.ls1\.gamma'):
    load()
  # A distillation token has a position, and the rest is no square.
  positions = np.zeros((1, 18, 64), np.float32)
  safetensors.numpy.save_file(tensors | {'pos_embed': positions}, path)
  with pytest.raises(
    ValueError, match=r'pos_embed is \(1, 18, 64\) there, \(4, 4, 64\)'
  ):
    load()


@pytest.mark.parametrize('library', ['timm', 'huggingface', 'haiku'])
def test_another_number_of_heads_is_refused(library, trees, tmp_path):
  """Its weights fit, and what they would compute means nothing."""
  params, state = trees()
  _export(tmp_path / 'out', library, trees)
  start = _load(tmp_path / 'out', params, state)
  jax.tree.map(np.testing.assert_array_equal, start.params, params)
  message = r'does not fit: its num_heads is 1, 2 in the network; use its network, --'
  with pytest.raises(ValueError, match=message):
    _load(tmp_path / 'out', params, state, encoder_options=TINY | {'num_heads': 2})


# As timm and Hugging Face write them, which say nothing in the file of weights.
BESIDE = {
  'timm': {
    'config.json': {
      'architecture': 'vit_small_patch16_224',
      'model_args': {'num_heads': 4},
      'pretrained_cfg': {
        'input_size': [3, 40, 40],
        'mean': [0.5, 0.5, 0.5],
        'std': [0.25, 0.25, 0.25],
        'crop_pct': 1.0,
      },
    },
  },
  'huggingface': {
    'config.json': {'model_type': 'vit', 'num_attention_heads': 4},
    'preprocessor_config.json': {
      'size': {'height': 40, 'width': 40},
      'image_mean': [0.5, 0.5, 0.5],
      'image_std': [0.25, 0.25, 0.25],
    },
  },
}


@pytest.mark.parametrize('library', list(BESIDE))
def test_files_beside_the_weights_describe_them(library, trees, tmp_path):
  params, state = trees()
  path = tmp_path / 'model.safetensors'
  tensors = layouts.to_tensors(LAYOUTS[library], params)
  safetensors.numpy.save_file(tensors, path)
  guessed = files.read(path).known_settings
  assert (guessed.encoder_options['num_heads'], guessed.crop_size) == (1, 224)
  # As the library resizes; what it cuts off is not known.
  how = lambda settings: (settings.evaluation_crop, settings.interpolation)
  assert how(guessed) == ('centre', 'bicubic_antialias')
  for name, content in BESIDE[library].items():
    (tmp_path / name).write_text(json.dumps(content))
  found = files.read(path).known_settings
  assert (found.encoder_options['num_heads'], found.crop_size) == (4, 40)
  assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
  assert found.description.endswith('images as the files beside it say')
  assert how(found) == ('shorter_side', 'bicubic_antialias')
  here = {'mean': found.mean, 'std': found.std}
  with pytest.raises(ValueError, match='its num_heads is 4, 1 in the network'):
    _load(path, params, state, **here)
  options = TINY | {'num_heads': 4}
  with pytest.raises(ValueError, match=r'has seen images of mean \(0\.5, 0\.5, 0\.5\)'):
    _load(path, params, state, encoder_options=options)
  start = _load(path, params, state, encoder_options=options, **here)
  jax.tree.map(np.testing.assert_array_equal, start.params, params)
  # Nothing is said of the images: any normalisation may be right.
  (tmp_path / 'preprocessor_config.json').unlink(missing_ok=True)
  (tmp_path / 'config.json').write_text('{"num_attention_heads": 4}')
  _load(path, params, state, encoder_options=options, mean=(0.1,) * 3)
  # Another name is no file of theirs.
  safetensors.numpy.save_file(tensors, tmp_path / 'other.safetensors')
  assert files.read(tmp_path / 'other.safetensors').known_settings.crop_size == 224


def test_a_width_that_is_no_multiple_of_64_needs_its_heads(random_encoder, tmp_path):
  params, _ = random_encoder('vit_s16', **TINY | {'width': 48, 'num_heads': 3})
  path = tmp_path / 'model.safetensors'
  tensors = layouts.to_tensors(layouts_of_vit.HUGGINGFACE, params)
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(
    ValueError, match=r'of width 48, .* say it in a config\.json beside'
  ):
    files.read(path).known_settings  # noqa: B018
  (tmp_path / 'config.json').write_text('{"num_attention_heads": 3}')
  found = files.read(path).known_settings
  unseen = networks.unseen_options(found.encoder, found.encoder_options)
  assert unseen == {'num_heads': 3}


def test_nonsense_beside_the_weights_is_named(trees, tmp_path):
  path = tmp_path / 'model.safetensors'
  tensors = layouts.to_tensors(layouts_of_vit.TIMM, trees()[0])
  safetensors.numpy.save_file(tensors, path)
  (tmp_path / 'config.json').write_text('{"num_attention_heads": "many"}')
  with pytest.raises(ValueError, match=r'config\.json or .* does not describe model'):
    files.read(path)


def test_a_training_with_another_number_of_heads_is_not_resumed(monkeypatch):
  settings = settings_of('vit_s16', options=TINY)
  described = (None, 1, {'target_network': True}, settings)
  monkeypatch.setattr(pretrained, '_describe', lambda _: described)
  options = TINY | {'num_heads': 2}
  with pytest.raises(ValueError, match='its num_heads is 1, 2 in the network; use its'):
    pretrained.read_state(
      'run',
      None,
      encoder='vit_s16',
      encoder_options=options,
      weight_ema_decay=0.999,
      **IMAGENET,
    )
