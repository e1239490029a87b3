"""The configurations of pre-training."""

import importlib
import pathlib

import pytest

from sslhsic.data import sources

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / 'configs' / 'pretrain').glob('*.py'))

# Epochs: base learning rate, weight decay, target decay (BYOL paper).
BYOL_PRESETS = {
  100: (0.45, 1e-6, 0.99),
  300: (0.3, 1e-6, 0.99),
  1000: (0.2, 1.5e-6, 0.996),
}


def _config(name):
  return importlib.import_module(f'configs.pretrain.{name}').get_config()


@pytest.mark.parametrize('name', NAMES)
def test_data_are_described_completely(name):
  data = _config(name).data
  assert data.keys() == _config('imagenet').data.keys()
  assert data.source.partition(':')[0] in sources.SOURCES
  assert len(data.mean) == len(data.std) == (1 if data.source == 'digits' else 3)
  assert all(0 < value < 1 for value in data.mean + data.std)


@pytest.mark.parametrize(
  'name', ['cifar10', 'cifar100', 'stl10', 'tiny_imagenet', 'imagenet100']
)
def test_schedule_is_the_preset_of_its_length(name):
  config = _config(name)
  optimizer = config.optimizer
  preset = (
    optimizer.base_learning_rate,
    optimizer.weight_decay,
    config.target_base_decay,
  )
  assert preset == BYOL_PRESETS[config.training.epochs]
