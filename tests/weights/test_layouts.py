"""Names and shapes of other libraries, kept as data, and the way there and back."""

import json
import pathlib
import re

import haiku as hk
import jax
import numpy as np
import pytest

from sslhsic.evaluation import encoder
from sslhsic.networks import classifier
from sslhsic.pretraining import model
from sslhsic.weights import families, layouts, resnet

DATA = pathlib.Path(__file__).resolve().parents[1] / 'data'
LAYOUTS = {layout.name: layout for layout in resnet.FAMILY.layouts}


def _leaves(tree):
  return {
    f'{module}/{name}': value
    for module, name, value in hk.data_structures.traverse(tree)
  }


@pytest.fixture(scope='module')
def state_dicts():
  """'LIBRARY/NETWORK' -> name -> shape, see data/make_state_dicts.py."""
  return json.loads((DATA / 'state_dicts.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
@pytest.mark.parametrize('library', ['torchvision', 'timm', 'huggingface'])
def test_names_and_shapes_are_those_of_the_library(
  state_dicts, random_encoder, library, name
):
  expected = {
    key: tuple(shape)
    for key, shape in state_dicts[f'{library}/{name}'].items()
    if not key.startswith('fc.')
  }
  layout = LAYOUTS['torchvision' if library == 'timm' else library]
  tensors = layouts.to_tensors(layout, *random_encoder(name))
  assert {key: value.shape for key, value in tensors.items()} == expected


@pytest.mark.parametrize('options', [{}, {'stem': 'small', 'width': 2}])
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
@pytest.mark.parametrize('layout', resnet.FAMILY.layouts, ids=LAYOUTS)
def test_there_and_back_is_exact(random_encoder, layout, name, options):
  trees = random_encoder(name, **options)
  tensors = layouts.to_tensors(layout, *trees)
  assert layouts.names(layout, *trees) == tensors.keys()
  for tree in trees:
    again = _leaves(layouts.from_tensors(layout, tensors, tree))
    assert again.keys() == _leaves(tree).keys()
    for key, value in _leaves(tree).items():
      assert again[key].shape == value.shape
      assert again[key].dtype == value.dtype
      # PyTorch has no bias correction: its state follows from the average.
      if layout.is_haiku or not key.endswith(('hidden', 'counter')):
        np.testing.assert_array_equal(again[key], value, err_msg=key)


def test_imported_statistics_move_as_in_pytorch(random_encoder):
  """running ← 0.9·running + 0.1·batch, from the first batch on."""
  options = {'blocks_per_group': (1,), 'channels_per_group': (4,), 'stem': 'small'}
  params, state = random_encoder('resnet18', **options)
  tensors = layouts.to_tensors(resnet.TORCHVISION, params, state)
  imported = layouts.from_tensors(resnet.TORCHVISION, tensors, state)
  network = classifier.encoder(encoder='resnet18', encoder_options=options)
  images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
  _, after = network.apply(params, imported, None, images, True)
  convolved = jax.lax.conv_general_dilated(
    images,
    params['encoder/stem_conv']['w'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  mean = np.asarray(convolved).mean(axis=(0, 1, 2))
  module = 'encoder/stem_batchnorm/~/mean_ema'
  np.testing.assert_allclose(
    after[module]['average'].reshape(-1),
    0.9 * state[module]['average'].reshape(-1) + 0.1 * mean,
    rtol=1e-4,
    atol=1e-6,
  )


def test_layers_of_other_families_are_laid_out_as_in_pytorch():
  """A linear layer is [out, in] there, layer norm a vector."""
  layout = layouts.Layout(
    name='tokens',
    tensor=layouts.named_as_in_pytorch(lambda layer: layer.partition('/')[2]),
    part=re.compile('mlp|norm'),
  )
  weights = np.arange(6, dtype=np.float32).reshape(2, 3)
  params = {
    'encoder/mlp': {'w': weights, 'b': np.ones(3, np.float32)},
    'encoder/norm': {'scale': np.full(2, 3, np.float32)},
  }
  tensors = layouts.to_tensors(layout, params)
  assert tensors.keys() == {'mlp.weight', 'mlp.bias', 'norm.weight'}
  np.testing.assert_array_equal(tensors['mlp.weight'], [[0, 3], [1, 4], [2, 5]])
  again = layouts.from_tensors(layout, tensors, params)
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_projector_is_a_sequential_of_pytorch():
  online = model.create(
    encoder='resnet_digits',
    encoder_options={},
    head={'hidden_size': 16, 'output_size': 8},
    with_target=True,
    num_classes=10,
  ).online
  trees = (
    {module: x for module, x in tree.items() if module.startswith('projector/')}
    for tree in encoder.initial_values(online, (8, 8, 1), seed=0)
  )
  tensors = layouts.to_tensors(resnet.TORCHVISION, *trees)
  assert {name: value.shape for name, value in tensors.items()} == {
    '0.weight': (16, 64),
    '0.bias': (16,),
    '1.weight': (16,),
    '1.bias': (16,),
    '1.running_mean': (16,),
    '1.running_var': (16,),
    '1.num_batches_tracked': (),
    '3.weight': (8, 16),
  }


# Which network, and where it is


@pytest.mark.parametrize('layout', resnet.FAMILY.layouts, ids=LAYOUTS)
@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('resnet18', {}),
    ('resnet18', {'stem': 'small'}),
    ('resnet50', {}),
    ('resnet_digits', {}),
    ('resnet34', {'width': 2}),
    ('resnet18', {'project_first_shortcut': True}),
    ('resnet34', {'project_first_shortcut': True, 'stem': 'small', 'width': 2}),
    ('resnet50', {'project_first_shortcut': True}),
  ],
)
def test_architecture_is_told_from_the_tensors(random_encoder, layout, name, options):
  tensors = layouts.to_tensors(layout, *random_encoder(name, **options))
  found = layout.infer(tensors)
  expected = resnet.architecture(name, options)
  assert resnet.architecture(found.encoder, found.options) == expected
  assert found.num_channels == 3


def test_stock_networks_have_their_name():
  assert resnet.architecture('resnet50', {}).stock_name == 'resnet50'
  assert resnet.architecture('resnet50', {'width': 2}).stock_name is None
  assert resnet.architecture('resnet18', {'stem': 'small'}).stock_name is None
  assert resnet.architecture('resnet_digits', {}).stock_name is None
  projected = {'project_first_shortcut': True}
  assert resnet.architecture('resnet18', projected).stock_name is None
  assert resnet.architecture('resnet50', projected).stock_name == 'resnet50'


TORCH = resnet.TORCHVISION.anchors
HUGGING = resnet.HUGGINGFACE.anchors


@pytest.mark.parametrize(
  ('names', 'layout', 'prefix'),
  [
    (TORCH, 'torchvision', ''),
    (HUGGING, 'huggingface', ''),
    ([f'resnet.{x}' for x in HUGGING], 'huggingface', 'resnet.'),
    # MoCo, with its queue and its momentum encoder; BYOL; a supervised wrapper.
    (
      [f'module.encoder_{x}.{y}' for x in 'qk' for y in TORCH] + ['module.queue'],
      'torchvision',
      'module.encoder_q.',
    ),
    (
      [f'{x}_network.encoder.{y}' for x in ('online', 'target') for y in TORCH],
      'torchvision',
      'online_network.encoder.',
    ),
    (
      [f'{x}.backbone.{y}' for x in ('student', 'teacher') for y in TORCH],
      'torchvision',
      'student.backbone.',
    ),
    # A file with nothing but the network that follows.
    ([f'teacher.{x}' for x in TORCH], 'torchvision', 'teacher.'),
  ],
)
def test_encoder_is_found(names, layout, prefix):
  found, where = families.detect(names)
  assert (found.name, where) == (layout, prefix)


def test_what_is_no_encoder_or_several_is_refused():
  with pytest.raises(ValueError, match=r'no ResNet in the layout of .* a\.b, c\.d$'):
    families.detect(['c.d', 'a.b'])
  with pytest.raises(ValueError, match=r'2 encoders, left\., right\.; write a file'):
    families.detect([f'{x}.{y}' for x in ('left', 'right') for y in TORCH])
