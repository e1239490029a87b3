"""`sslhsic.load`: encoders of runs, exports and other libraries, as functions."""

import pathlib

import cv2
import numpy as np
import pytest
import safetensors.numpy

import sslhsic
from sslhsic.weights import files, layouts
from sslhsic.weights import settings as settings_lib

DATA = pathlib.Path(__file__).parent / 'data'


@pytest.mark.parametrize('name', ['bottleneck/odd', 'basic/tiny'])
def test_weights_of_pytorch_give_its_features(name, tmp_path):
  """A file with nothing but the tensors; images and results are PyTorch's."""
  network, size = name.split('/')
  golden = np.load(DATA / 'resnet_golden.npz')
  prefix = f'{network}/weights/'
  tensors = {
    key.removeprefix(prefix): golden[key] for key in golden if key.startswith(prefix)
  }
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file(tensors, path)
  expected = golden[f'{name}/dilated0/eval'].mean(axis=(1, 2))
  for init_from in (path, tmp_path):  # The file, and the directory that it is in.
    embeddings = sslhsic.load(init_from)(golden[f'images/{size}'])
    np.testing.assert_allclose(embeddings, expected, atol=1e-5 * expected.max())


@pytest.fixture
def of_colour(tmp_path, random_encoder):
  """An encoder of images of 16 pixels."""
  settings = settings_lib.Settings(
    'resnet_digits', {}, 16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 'a run'
  )
  tensors = layouts.to_tensors(layouts.HAIKU, *random_encoder('resnet_digits'))
  files.write(tmp_path / 'model.safetensors', tensors, settings)
  return sslhsic.load(tmp_path)


def test_pictures_are_cropped_and_normalised(of_colour, tmp_path):
  colour = np.array([200, 100, 50], np.uint8)
  picture = np.zeros((32, 64, 3), np.uint8)
  picture[:, 16:48] = colour  # The square in the middle.
  cv2.imwrite(str(tmp_path / 'a.png'), picture[..., ::-1])
  images = of_colour.preprocess([picture, tmp_path / 'a.png'])
  assert images.shape == (2, 16, 16, 3)
  expected = (colour / 255 - (0.1, 0.2, 0.3)) / (0.4, 0.5, 0.6)
  np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), rtol=1e-5)
  assert of_colour(images).shape == (2, 64)


@pytest.mark.parametrize(
  ('picture', 'found'),
  [
    (np.zeros((8, 8), np.uint8), r'uint8\(8, 8\)'),
    (np.zeros((8, 8, 1), np.uint8), r'uint8\(8, 8, 1\)'),
    (np.zeros((8, 8, 3), np.float32), r'float32\(8, 8, 3\)'),
  ],
)
def test_pictures_of_another_kind_are_refused(of_colour, picture, found):
  with pytest.raises(ValueError, match=rf'is {found}; use uint8 \[H, W, 3\]'):
    of_colour.preprocess([picture])


def test_nothing_is_refused(tmp_path):
  with pytest.raises(ValueError, match='is no pre-training run'):
    sslhsic.load(tmp_path)
