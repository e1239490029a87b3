"""`sslhsic.load`: encoders of runs, exports and other libraries, as functions."""

import pathlib
import pickle

import cv2
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

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


def test_picture_that_cannot_be_read_is_named(of_colour, tmp_path):
  (tmp_path / 'bad.jpg').write_bytes(b'abc')
  with pytest.raises(ValueError, match=r'bad\.jpg: 3 bytes are no image'):
    of_colour.preprocess([np.zeros((8, 8, 3), np.uint8), tmp_path / 'bad.jpg'])


def test_pictures_are_a_list(of_colour):
  for one in ('a.png', pathlib.Path('a.png'), Image.new('RGB', (8, 8))):
    with pytest.raises(ValueError, match=r'pictures is a single one, .*; pass a list'):
      of_colour.preprocess(one)
  with pytest.raises(ValueError, match='there is no picture'):
    of_colour.preprocess([])


def test_nothing_is_refused(tmp_path):
  with pytest.raises(ValueError, match='is no pre-training run'):
    sslhsic.load(tmp_path)


def test_images_of_pillow_are_those_of_the_file(of_colour, tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (20, 30, 4), np.uint8)
  exif = Image.Exif()
  exif[274] = 6  # To be turned by 90 degrees.
  Image.fromarray(pixels[..., :3]).save(tmp_path / 'a.jpg', exif=exif)
  Image.fromarray(pixels).save(tmp_path / 'b.png')
  Image.fromarray(pixels[..., 0]).save(tmp_path / 'c.png')
  for name, tolerance in (('a.jpg', 0.3), ('b.png', 0.03), ('c.png', 0.0)):
    opened = Image.open(tmp_path / name)
    found, expected = (of_colour.preprocess([x]) for x in (opened, tmp_path / name))
    np.testing.assert_allclose(found, expected, atol=tolerance)
  with pytest.raises(ValueError, match="Pillow's mode I;16, whose range is not known"):
    of_colour.preprocess([Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)])


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_images_of_pillow_are_turned_as_the_file(of_colour, tmp_path, suffix):
  exif = Image.Exif()
  exif[274] = 6
  pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  path = tmp_path / f'a.{suffix}'
  options = {'lossless': True} if suffix == 'webp' else {}
  Image.fromarray(pixels).save(path, exif=exif, **options)
  found, expected = (of_colour.preprocess([x]) for x in (Image.open(path), path))
  np.testing.assert_allclose(found, expected, atol=0.3 if suffix == 'jpg' else 0.03)


def test_gray_encoder_reads_files_as_gray(random_encoder, tmp_path):
  settings = settings_lib.Settings('resnet_digits', {}, 0, (0.3,), (0.4,), 'a run')
  trees = random_encoder('resnet_digits', channels=1)
  tensors = layouts.to_tensors(layouts.HAIKU, *trees)
  files.write(tmp_path / 'model.safetensors', tensors, settings)
  encoder = sslhsic.load(tmp_path)
  pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  expected = encoder.preprocess([pixels[..., None]])
  with pytest.raises(ValueError, match='pictures are 7×8 and 8×8, and this encoder'):
    encoder.preprocess([pixels[..., None], pixels[1:, :, None]])
  for picture in (tmp_path / 'a.png', Image.fromarray(pixels)):
    np.testing.assert_array_equal(encoder.preprocess([picture]), expected)
  # A drawing in black that is transparent elsewhere, as programs for that save it.
  drawing = Image.fromarray(np.stack([np.zeros_like(pixels), 255 - pixels], axis=-1))
  assert drawing.mode == 'LA'
  drawing.save(tmp_path / 'b.png')
  for picture in (tmp_path / 'b.png', drawing):
    found = encoder.preprocess([picture])
    np.testing.assert_allclose(found, expected, atol=1.01 / 255 / 0.4)


def test_encoder_is_pickled_as_its_path(of_colour, monkeypatch):
  data = pickle.dumps(of_colour)
  monkeypatch.chdir('/')
  images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
  again = pickle.loads(data)
  np.testing.assert_array_equal(again(images), of_colour(images))
  assert len(data) < 1000
