"""Exports in the libraries that they are for, and back; needs the extra 'libraries'.

Images are random, of 224 pixels and of an odd size, so that a padding on the wrong side
or by the wrong amount shows.
"""

import functools
import re

import jax
import numpy as np
import pytest

import sslhsic
from sslhsic.pretraining import model
from sslhsic.weights import export
from tests.weights.exports import facts, settings_of

torch = pytest.importorskip('torch')

SIZES = [224, 97]


@pytest.fixture(params=['resnet18', 'resnet50'])
def network(request, random_encoder):
  """A name, and its random weights."""
  weights = export.Network(*random_encoder(request.param), with_projector=False)
  return request.param, weights


def _export(network, format_name, directory, **settings):
  name, weights = network
  made = settings_of(name, **settings)
  export.write(directory, format_name, weights, made, facts())


def _images(size, channels=3):
  rng = np.random.default_rng(size)
  return rng.normal(size=(2, size, size, channels)).astype(np.float32)


def _run_card(directory, **names):
  """What the code in a model card gives."""
  text = (directory / 'README.md').read_text(encoding='utf-8')
  code = re.search(r'```python\n(.*?)```', text, re.DOTALL)[1]
  with torch.no_grad():
    exec(code.replace('DIR', str(directory)), names)
  return names


def _to_torch(images):
  return torch.tensor(images.transpose(0, 3, 1, 2))


def _assert_equal(embeddings, directory, images):
  ours = np.asarray(sslhsic.load(directory)(images))
  embeddings = embeddings.detach().numpy().reshape(ours.shape)
  np.testing.assert_allclose(embeddings, ours, rtol=0, atol=1e-4 * np.abs(ours).max())
  assert ours.std() > 0.01


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('format_name', ['torchvision', 'timm'])
def test_the_code_of_the_card_gives_our_embeddings(
  network, format_name, size, tmp_path
):
  pytest.importorskip(format_name)
  _export(network, format_name, tmp_path / 'out')
  images = _images(size)
  found = _run_card(tmp_path / 'out', images=_to_torch(images))
  _assert_equal(found['embeddings'], tmp_path / 'out', images)


@pytest.mark.parametrize('size', SIZES)
def test_huggingface_gives_our_embeddings(network, size, tmp_path):
  transformers = pytest.importorskip('transformers')
  _export(network, 'huggingface', tmp_path / 'out')
  model = transformers.AutoModel.from_pretrained(tmp_path / 'out').eval()
  images = _images(size)
  with torch.no_grad():
    found = model(_to_torch(images)).pooler_output
  _assert_equal(found, tmp_path / 'out', images)


def test_image_processor_of_huggingface_prepares_as_we_do(network, tmp_path):
  """Equal but for how the two resize: on a smooth picture to 1 of 255 on average."""
  pytest.importorskip('transformers')
  _export(network, 'huggingface', tmp_path / 'out')
  y, x = np.mgrid[:300, :400]
  waves = [np.sin(x / 40), np.cos(y / 30), np.sin((x + y) / 50)]
  picture = np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
  found = _run_card(tmp_path / 'out', picture=picture)
  ours = sslhsic.load(tmp_path / 'out').preprocess([picture])
  theirs = found['inputs']['pixel_values'].numpy().transpose(0, 2, 3, 1)
  assert theirs.shape == ours.shape == (1, 224, 224, 3)
  assert np.abs(theirs - ours).mean() < 1 / 255 / 0.225
  assert found['embeddings'].shape[0] == 1


def test_small_stem_in_torchvision(random_encoder, tmp_path):
  pytest.importorskip('torchvision')
  trees = random_encoder('resnet18', stem='small')
  network = 'resnet18', export.Network(*trees, with_projector=False)
  options = {'stem': 'small'}
  _export(network, 'torchvision', tmp_path / 'out', crop_size=32, options=options)
  images = _images(33)
  found = _run_card(tmp_path / 'out', images=_to_torch(images))
  _assert_equal(found['embeddings'], tmp_path / 'out', images)


def test_projector_in_pytorch(tmp_path):
  online = model.create(
    encoder='resnet_digits',
    encoder_options={},
    head={'hidden_size': 16, 'output_size': 8},
    with_target=False,
    num_classes=0,
  ).online
  images = _images(8, channels=1)
  params, state = online.init(jax.random.key(0), images, True)
  outputs, state = online.apply(params, state, None, images, True)
  outputs, _ = online.apply(params, state, None, images, False)
  network = export.Network(*jax.device_get((params, state)), with_projector=True)
  made = settings_of('resnet_digits', mean=(0.3,), std=(0.4,))
  export.write(tmp_path / 'out', 'torchvision', network, made, facts())
  linear, norm = torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16)
  last = torch.nn.Linear(16, 8, bias=False)
  projector = torch.nn.Sequential(linear, norm, torch.nn.ReLU(), last).eval()
  from safetensors.torch import load_file

  projector.load_state_dict(load_file(tmp_path / 'out' / 'projector.safetensors'))
  found = projector(torch.tensor(np.asarray(outputs.embedding))).detach().numpy()
  np.testing.assert_allclose(found, outputs.projection, rtol=1e-4, atol=1e-5)


# The other way


def _of_torchvision():
  model = pytest.importorskip('torchvision').models.resnet50()
  return model, torch.nn.Sequential(*list(model.children())[:-1])


def _of_timm():
  model = pytest.importorskip('timm').create_model('resnet18')
  return model, lambda images: model.forward_head(
    model.forward_features(images), pre_logits=True
  )


def _of_huggingface():
  transformers = pytest.importorskip('transformers')
  config = transformers.ResNetConfig(
    depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type='basic'
  )
  model = transformers.ResNetForImageClassification(config)
  return model, lambda images: model.resnet(images).pooler_output


@pytest.mark.parametrize('create', [_of_torchvision, _of_timm, _of_huggingface])
def test_a_model_as_its_library_saves_it_gives_its_embeddings(create, tmp_path):
  from safetensors.torch import save_file

  torch.manual_seed(0)
  model, embed = create()
  images = _images(97)
  with torch.no_grad():
    for _ in range(3):
      model.train()(_to_torch(images))  # Batch statistics of their own.
    model.eval()
    expected = embed(_to_torch(images))
  tensors = {name: x.contiguous() for name, x in model.state_dict().items()}
  save_file(tensors, tmp_path / 'model.safetensors')
  _assert_equal(expected, tmp_path / 'model.safetensors', images)


# Vision Transformers

# In few pixels; dimensions of ViT-Ti.
VIT = {'depth': 2, 'image_size': 64}


@pytest.mark.parametrize(
  ('format_name', 'options', 'crop_size', 'sizes'),
  [
    ('timm', {}, 64, (64, 96, 48)),
    ('timm', {'num_registers': 3}, 64, (64, 96)),
    ('timm', {'pooling': 'mean', 'num_registers': 2}, 96, (64, 96)),
    ('timm', {'positions': 'sincos'}, 96, (96,)),
    ('huggingface', {}, 64, (64,)),
    ('huggingface', {'positions': 'sincos', 'num_heads': 6}, 96, (96,)),
  ],
)
def test_vision_transformers_give_our_embeddings(
  random_encoder, format_name, options, crop_size, sizes, tmp_path
):
  library = {'huggingface': 'transformers'}.get(format_name, format_name)
  pytest.importorskip(library)
  options = VIT | options
  trees = random_encoder('vit_ti16', **options)
  network = 'vit_ti16', export.Network(*trees, with_projector=False)
  out = tmp_path / 'out'
  _export(network, format_name, out, crop_size=crop_size, options=options)
  for size in sizes:
    images = _images(size)
    picture = np.zeros((size, size, 3), np.uint8)
    found = _run_card(out, images=_to_torch(images), picture=picture)
    embeddings = found['embeddings']
    if format_name == 'huggingface':
      with torch.no_grad():
        embeddings = found['model'](_to_torch(images)).last_hidden_state[:, 0]
    _assert_equal(embeddings, out, images)


def _timm_vit(**arguments):
  timm = pytest.importorskip('timm')
  arguments = {'depth': 2, 'img_size': 64, 'num_classes': 0, **arguments}
  model = timm.create_model('vit_tiny_patch16_224', dynamic_img_size=True, **arguments)
  return model, model


def _huggingface_vit():
  transformers = pytest.importorskip('transformers')
  config = transformers.ViTConfig(
    hidden_size=192,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=768,
    image_size=64,
    patch_size=16,
  )
  model = transformers.ViTForImageClassification(config)
  return model, lambda images: model.vit(images).last_hidden_state[:, 0]


@pytest.mark.parametrize(
  ('create', 'sizes'),
  [
    (_timm_vit, (64, 96)),
    (functools.partial(_timm_vit, reg_tokens=2), (64,)),
    (functools.partial(_timm_vit, reg_tokens=2, no_embed_class=True), (64, 96)),
    (
      functools.partial(_timm_vit, class_token=False, global_pool='avg', fc_norm=False),
      (64, 96),
    ),
    (_huggingface_vit, (64,)),
  ],
  ids=['timm', 'registers', 'no_embed_class', 'mean', 'huggingface'],
)
def test_a_vision_transformer_gives_its_embeddings(create, sizes, tmp_path):
  from safetensors.torch import save_file

  torch.manual_seed(0)
  model, embed = create()
  with torch.no_grad():
    for parameter in model.parameters():  # Many are 0 or 1 at the start.
      parameter += 0.1 * torch.randn_like(parameter)
  model.eval()
  path = tmp_path / 'model.safetensors'
  if create is _huggingface_vit:  # It saves other names than it has.
    model.save_pretrained(tmp_path)
  else:
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, path)
  for size in sizes:
    images = _images(size)
    with torch.no_grad():
      expected = embed(_to_torch(images))
    _assert_equal(expected, path, images)
