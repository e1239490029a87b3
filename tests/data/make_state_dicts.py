"""Writes what torchvision, timm and Hugging Face call the weights of their networks.

Needs torchvision, timm and transformers, which nothing else here does:

python tests/data/make_state_dicts.py
"""

import functools
import itertools
import json
import pathlib
import tempfile

import safetensors.numpy
import timm
import torchvision
import transformers


def _networks():
  for name, depths, hidden_sizes, layer_type in (
    ('resnet18', [2, 2, 2, 2], [64, 128, 256, 512], 'basic'),
    ('resnet50', [3, 4, 6, 3], [256, 512, 1024, 2048], 'bottleneck'),
  ):
    config = transformers.ResNetConfig(
      depths=depths, hidden_sizes=hidden_sizes, layer_type=layer_type
    )
    yield 'torchvision', name, torchvision.models.get_model(name, weights=None)
    yield 'timm', name, timm.create_model(name)
    yield 'huggingface', name, transformers.ResNetModel(config)


def _transformers():
  """Small ones, of the names that larger ones have."""
  sizes = {'image_size': 32, 'patch_size': 8}
  timm_vit = {'embed_dim': 64, 'depth': 2, 'num_heads': 1, 'img_size': 32}
  create = functools.partial(
    timm.create_model, 'vit_tiny_patch16_224', patch_size=8, num_classes=0, **timm_vit
  )
  yield 'timm', 'vit', create()
  yield 'timm', 'vit_registers', create(reg_tokens=2)
  yield 'timm', 'vit_mean', create(class_token=False, global_pool='avg', fc_norm=False)
  config = transformers.ViTConfig(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=1,
    intermediate_size=256,
    **sizes,
  )
  yield 'huggingface', 'vit', transformers.ViTModel(config, add_pooling_layer=False)


def _shapes(network):
  """Of the tensors of a file, which for Hugging Face's ViT have names of their own."""
  if not isinstance(network, transformers.ViTModel):
    return {key: list(value.shape) for key, value in network.state_dict().items()}
  with tempfile.TemporaryDirectory() as directory:
    network.save_pretrained(directory)
    tensors = safetensors.numpy.load_file(f'{directory}/model.safetensors')
  return {key: list(value.shape) for key, value in tensors.items()}


def main():
  """Writes state_dicts.json beside this file: format/network -> name -> shape."""
  networks = itertools.chain(_networks(), _transformers())
  shapes = {
    f'{library}/{name}': _shapes(network) for library, name, network in networks
  }
  path = pathlib.Path(__file__).with_name('state_dicts.json')
  path.write_text(json.dumps(shapes, indent=0) + '\n')


if __name__ == '__main__':
  main()
