"""Writes what torchvision, timm and Hugging Face call the weights of their ResNets.

Needs torchvision, timm and transformers, which nothing else here does:

python tests/data/make_state_dicts.py
"""

import json
import pathlib

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


def main():
  """Writes state_dicts.json beside this file: format/network -> name -> shape."""
  shapes = {
    f'{library}/{name}': {
      key: list(value.shape) for key, value in network.state_dict().items()
    }
    for library, name, network in _networks()
  }
  path = pathlib.Path(__file__).with_name('state_dicts.json')
  path.write_text(json.dumps(shapes, indent=0) + '\n')


if __name__ == '__main__':
  main()
