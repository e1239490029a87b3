"""Exports: what is in them, that they are whole, what is refused."""

import json

import pytest
import safetensors.numpy

from sslhsic import atomic
from sslhsic.weights import card, export
from tests.weights.exports import IMAGENET, facts, settings_of


@pytest.fixture
def small(random_encoder):
  """A small network with the stem of ImageNet, and its settings."""
  options = {'blocks_per_group': (1, 1), 'channels_per_group': (4, 8)}
  network = export.Network(*random_encoder('resnet18', **options), with_projector=False)
  return network, settings_of('resnet18', options=options)


def test_weights_of_other_libraries_have_no_stranger_beside_them(small, tmp_path):
  """A strict load_state_dict takes the file as it is."""
  export.write(tmp_path / 'out', 'torchvision', *small, facts())
  tensors = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  names = tensors.keys()
  assert {'conv1.weight', 'layer2.0.downsample.1.running_var'} < names
  assert tensors['bn1.num_batches_tracked'].shape == ()
  assert all(name.startswith(('conv1.', 'bn1.', 'layer')) for name in names)
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
    'model.safetensors',
    'README.md',
  }


def test_huggingface_reads_the_network_from_its_configuration(small, tmp_path):
  export.write(tmp_path / 'out', 'huggingface', *small, facts())
  read = lambda name: json.loads((tmp_path / 'out' / name).read_text())
  config, processor = read('config.json'), read('preprocessor_config.json')
  assert (config['depths'], config['hidden_sizes']) == ([1, 1], [4, 8])
  assert (config['embedding_size'], config['layer_type']) == (4, 'basic')
  assert processor['size'] == {'shortest_edge': 256}
  assert processor['crop_size'] == {'height': 224, 'width': 224}
  assert processor['image_mean'] == list(IMAGENET['mean'])


def test_export_is_whole_or_not_there(small, tmp_path, monkeypatch):
  def fail(*args):
    raise OSError('no space left')

  monkeypatch.setattr(card, 'render', fail)
  with pytest.raises(OSError, match='no space left'):
    export.write(tmp_path / 'out', 'torchvision', *small, facts())
  assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(small, tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  export.write(out, 'torchvision', *small, facts())  # Empty: as if it were not there.
  before = (out / 'README.md').read_bytes()
  with pytest.raises(ValueError, match='is there already, and not empty'):
    export.write(out, 'haiku', *small, facts())
  assert (out / 'README.md').read_bytes() == before


@pytest.mark.parametrize(
  ('format_name', 'settings', 'message'),
  [
    ('timm', settings_of('resnet50', options={'width': 2}), 'timm has no network like'),
    ('timm', settings_of('resnet18', options={'stem': 'small'}), 'timm has no network'),
    ('timm', settings_of('resnet50', options={'output_stride': 16}), 'timm has no net'),
    (
      'huggingface',
      settings_of('resnet50', options={'output_stride': 8}),
      "Hugging Face's ResNet has no dilation",
    ),
    ('huggingface', settings_of('resnet_digits'), "has a stem 'small'; use the format"),
    ('onnx', settings_of('resnet50'), "unknown format 'onnx'; use one of torchvision"),
  ],
)
def test_networks_that_a_library_has_not_are_refused(
  small, tmp_path, format_name, settings, message
):
  with pytest.raises(ValueError, match=message):
    export.write(tmp_path / 'out', format_name, small[0], settings, facts())
  assert list(tmp_path.iterdir()) == []


# The model card


def test_card_tells_how_it_was_made_and_measured():
  results = {
    'git_commit': 'abc123',
    'device': '1 × cpu',
    'versions': {'jax': '0.10.1'},
    'command': ['experiments/pretrain.py', '--config=configs/pretrain/digits.py'],
  }
  evaluation = {
    'linear_top1': 0.98765,
    'protocol': {'linear_top1': 'on frozen features', 'data': 'digits'},
  }
  text = card.render(
    'haiku',
    settings_of('resnet_digits', 0, mean=(0.3053,), std=(0.376,)),
    facts(results=results, evaluations=[evaluation]),
  )
  for part in (
    '# resnet_digits, pre-trained with ssl_hsic',
    'weights of the last step, after 898 steps',
    'Whole images; values in [0, 1], of which the mean (0.3053,) is subtracted',
    '| learning rate | 0.004 = 0.008 · 128 / 256; 10 epochs of warm-up',
    '| linear_top1 | 0.9877 | on frozen features |',
    'Commit abc123 of sslhsic, on 1 × cpu, with jax 0.10.1:',
    'python -m experiments.pretrain --config=configs/pretrain/digits.py',
    'Exported by `python -m experiments.export`',
  ):
    assert part in text


def test_card_of_a_network_of_no_other_library_loads_it_with_this_one():
  text = card.render('torchvision', settings_of('resnet_digits'), facts())
  assert 'torchvision has no such network' in text
  assert "sslhsic.load('DIR')" in text


def test_card_of_a_run_without_results_says_so():
  text = card.render('timm', settings_of('resnet50'), facts())
  assert 'library_name: timm' in text
  assert 'No result is known.' in text
  assert 'has not been run to its end' in text


def test_directory_of_the_run_is_no_export(tmp_path):
  atomic.write(tmp_path / 'config.json', '{}')
  with pytest.raises(ValueError, match='use another --out'):
    export.write(tmp_path, 'haiku', None, settings_of('resnet50'), facts())
