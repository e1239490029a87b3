"""Files of weights: whose they are, what they lack, what is refused."""

import os
import shlex
import subprocess
import sys
import types

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from sslhsic.weights import files, layouts, pretrained, resnet
from sslhsic.weights import settings as settings_lib

OPTIONS = {'channels_per_group': (4, 8)}
IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


@pytest.fixture
def digits(random_encoder):
  """A small encoder, and a function that writes it as others would."""
  trees = random_encoder('resnet_digits', **OPTIONS)

  def write(path, layout=resnet.TORCHVISION, prefix='', without=(), **others):
    tensors = {
      prefix + name: value for name, value in layouts.to_tensors(layout, *trees).items()
    }
    kept = {name: x for name, x in tensors.items() if name not in without}
    safetensors.numpy.save_file(kept | others, path)
    return path

  return trees, write


def _load(path, trees):
  zeros = [{m: {n: 0 * x for n, x in v.items()} for m, v in t.items()} for t in trees]
  return pretrained.load(
    str(path), *zeros, encoder='resnet_digits', encoder_options=OPTIONS, **IMAGENET
  )


@pytest.mark.parametrize(
  ('layout', 'prefix'),
  [
    (resnet.TORCHVISION, ''),
    (resnet.TORCHVISION, 'module.encoder_q.'),
    (resnet.HUGGINGFACE, 'resnet.'),
    (layouts.HAIKU, ''),
  ],
)
def test_encoder_is_that_of_the_file(digits, tmp_path, layout, prefix):
  trees, write = digits
  path = write(tmp_path / 'a.safetensors', layout, prefix)
  start = _load(path, trees)
  for found, tree in zip((start.params, start.network_state), trees, strict=True):
    for module, leaves in tree.items():
      for name in leaves.keys() - {'hidden', 'counter'}:
        np.testing.assert_array_equal(found[module][name], leaves[name])
  assert start.description == f'{path}, in the layout of {layout.name}'


def test_permissions_are_those_of_the_umask(tmp_path):
  path = tmp_path / files.WEIGHTS_NAME
  settings = settings_lib.Settings('resnet_digits', {}, 0, (0.3,), (0.4,), 'a run')
  before = os.umask(0o027)
  try:
    files.write(path, {'encoder.w': np.ones(3, np.float32)}, settings)
  finally:
    os.umask(before)
  assert path.stat().st_mode & 0o777 == 0o640


def test_values_of_half_precision_become_float32(digits, tmp_path):
  trees, write = digits
  path = write(tmp_path / 'a.safetensors')
  for dtype in (np.float16, ml_dtypes.bfloat16):
    tensors = {
      name: value.astype(dtype)
      for name, value in safetensors.numpy.load_file(path).items()
    }
    safetensors.numpy.save_file(tensors, tmp_path / 'half.safetensors')
    params = _load(tmp_path / 'half.safetensors', trees).params
    found = params['encoder/stem_conv']['w']
    expected = trees[0]['encoder/stem_conv']['w'].astype(dtype).astype(np.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_what_is_not_used_is_listed(digits, tmp_path, caplog):
  trees, write = digits
  others = {'fc.weight': np.zeros((2, 2)), 'fc.bias': np.zeros(2), 'queue': np.zeros(2)}
  path = write(tmp_path / 'a.safetensors', **others)
  _load(path, trees)
  assert f'{path}: not used are fc (2 tensors), queue' in caplog.text


def test_what_is_missing_or_unknown_is_refused_by_the_names_of_the_file(
  digits, tmp_path
):
  trees, write = digits
  path = write(tmp_path / 'a.safetensors', without=['layer2.0.conv1.weight'])
  message = (
    r'does not fit: layer2\.0\.conv1\.weight is nothing there, \(3, 3, 4, 8\) in'
  )
  with pytest.raises(ValueError, match=message):
    _load(path, trees)
  extra = {'layer2.1.conv1.weight': np.zeros((8, 8, 3, 3), np.float32)}
  path = write(tmp_path / 'b.safetensors', **extra)
  message = r'does not fit: the network has no layer2\.1\.conv1\.weight; set config'
  with pytest.raises(ValueError, match=message):
    _load(path, trees)


def test_settings_of_a_file(digits, tmp_path):
  trees, write = digits
  settings = files.read(write(tmp_path / 'a.safetensors')).known_settings
  assert (settings.encoder, settings.encoder_options) == (
    'resnet50',
    {
      'blocks_per_group': (1, 1),
      'channels_per_group': (4, 8),
      'bottleneck': False,
      'stem': 'small',
      'project_first_shortcut': False,
    },
  )
  assert (settings.mean, settings.std) == tuple(IMAGENET.values())
  assert 'images as those of ImageNet, as it does not say' in settings.description
  known = settings_lib.Settings('resnet18', {'width': 2}, 32, (0.5,), (0.2,), 'a run')
  tensors = layouts.to_tensors(layouts.HAIKU, *trees)
  files.write(tmp_path / 'b.safetensors', tensors, known)
  assert files.read(tmp_path / 'b.safetensors').known_settings == known
  with pytest.raises(ValueError, match=r'has seen images of mean \(0\.5,\)'):
    _load(tmp_path / 'b.safetensors', trees)


def test_normalisation_of_gray_images_is_not_guessed(random_encoder, tmp_path):
  trees = random_encoder('resnet_digits', channels=1)
  tensors = layouts.to_tensors(resnet.TORCHVISION, *trees)
  path = tmp_path / 'gray.safetensors'
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match='does not say how its images of 1 channels'):
    pretrained.settings(str(path))


@pytest.mark.parametrize('content', [b'', b'no tensors' * 9])
def test_damaged_files_are_refused(tmp_path, content):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='is no whole safetensors file'):
    pretrained.settings(str(path))


def test_what_could_run_code_is_refused(tmp_path):
  for suffix in ('.pth', '.pt', '.bin', '.ckpt', '.pth.tar'):
    with pytest.raises(ValueError, match='runs code when it is read; convert it'):
      pretrained.settings(str(tmp_path / f'moco{suffix}'))
  with pytest.raises(ValueError, match=r'there is no file .*a\.safetensors'):
    pretrained.settings(str(tmp_path / 'a.safetensors'))


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (['pytorch_model.bin'], r'pytorch_model\.bin is of a kind that runs code.*torch'),
    (['model-1-of-2.safetensors', 'model-2-of-2.safetensors'], 'in 2 files, model-1'),
    (['open_clip.safetensors'], r'name its file, .*open_clip\.safetensors'),
  ],
)
def test_weights_under_another_name_are_named(tmp_path, names, message):
  """A directory of Hugging Face, which also has a config.json."""
  for name in ('config.json', *names):
    (tmp_path / name).write_text('{}')
  with pytest.raises(ValueError, match=message):
    pretrained.settings(str(tmp_path))


def test_conversion_of_a_pickle(digits, tmp_path):
  """The command of the message, where PyTorch is installed."""
  torch = pytest.importorskip('torch')
  trees, _ = digits
  path = tmp_path / 'moco.pth'
  tensors = layouts.to_tensors(resnet.TORCHVISION, *trees)
  state_dict = {f'module.encoder_q.{k}': torch.tensor(x) for k, x in tensors.items()}
  torch.save({'epoch': 3, 'state_dict': state_dict}, path)
  _, *command = shlex.split(files.conversion(path))
  subprocess.run([sys.executable, *command], check=True)
  params = _load(tmp_path / 'moco.safetensors', trees).params
  np.testing.assert_array_equal(
    params['encoder/stem_conv']['w'], trees[0]['encoder/stem_conv']['w']
  )


class _Tensor(np.ndarray):
  """As much of a tensor of PyTorch as the command needs."""

  def clone(self):
    return self

  def contiguous(self):
    return self


@pytest.mark.parametrize(
  ('wrap', 'prefix'),
  [
    (lambda x: x, ''),
    (lambda x: {'state_dict': x, 'epoch': 3}, ''),
    (lambda x: {'model': x, 'optimizer': {'state': {0: {'step': 1}}}}, 'model.'),
    (
      lambda x: {'classy_state_dict': {'base_model': {'model': {'trunk': x}}}},
      'classy_state_dict.base_model.model.trunk.',
    ),
  ],
)
def test_conversion_finds_tensors_in_nested_dicts(wrap, prefix, monkeypatch, tmp_path):
  tensors = {'conv1.weight': np.ones(3).view(_Tensor), 'note': 'a text'}
  saved = {}
  torch = types.SimpleNamespace(
    load=lambda path, **_: wrap(tensors), is_tensor=lambda x: isinstance(x, _Tensor)
  )
  writer = types.SimpleNamespace(save_file=lambda x, path: saved.update({path: x}))
  monkeypatch.setitem(sys.modules, 'torch', torch)
  monkeypatch.setitem(sys.modules, 'safetensors.torch', writer)
  monkeypatch.setattr(safetensors, 'torch', writer, raising=False)
  _, _, code = shlex.split(files.conversion(tmp_path / 'moco.pth'))
  exec(code, {})
  (written,) = saved.items()
  assert written[0] == str(tmp_path / 'moco.safetensors')
  assert list(written[1]) == [f'{prefix}conv1.weight']
  torch.load = lambda path, **_: {'epoch': 3}
  with pytest.raises(AssertionError, match=r"no tensors in \['epoch'\]"):
    exec(code, {})


def test_weights_that_are_not_finite_are_named(digits, tmp_path):
  trees, settings = digits
  tensors = layouts.to_tensors(layouts.HAIKU, *trees)
  tensors['encoder/stem_conv/w'] = tensors['encoder/stem_conv/w'].copy()
  tensors['encoder/stem_conv/w'].flat[5] = np.nan
  message = r'encoder/stem_conv/w has 1 of \d+ values that are not finite'
  with pytest.raises(ValueError, match=message):
    files.write(tmp_path / 'a.safetensors', tensors, settings)
  path = tmp_path / 'b.safetensors'
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match=message):
    files.read(path)
