"""Embeddings of data sets, against the encoder as a function of images."""

import jax
import numpy as np

import sslhsic
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.evaluation import embed
from sslhsic.weights import files, layouts
from sslhsic.weights import settings as settings_lib


def _write_encoder(directory, random_encoder, *, channels, crop_size):
  settings = settings_lib.Settings(
    'resnet_digits', {}, crop_size, (0.5,) * channels, (0.2,) * channels, 'a run'
  )
  trees = random_encoder('resnet_digits', channels=channels)
  tensors = layouts.to_tensors(layouts.HAIKU, *trees)
  files.write(directory / files.WEIGHTS_NAME, tensors, settings)
  return settings


def test_devices_do_not_matter(random_encoder, monkeypatch, tmp_path):
  settings = _write_encoder(tmp_path, random_encoder, channels=1, crop_size=0)
  source = sources.create('digits', 'test[:20]')
  found = []
  for count in (1, 4):
    monkeypatch.setattr(parallel, 'devices', lambda n=count: jax.devices()[:n])
    found.append(
      embed.embed(
        settings, source, init_from=str(tmp_path), batch_size=8, max_bad_fraction=0.0
      )
    )
  np.testing.assert_allclose(*(x.embeddings for x in found), rtol=1e-5, atol=1e-6)
  for one, several in zip(found[0][1:], found[1][1:], strict=True):
    np.testing.assert_array_equal(one, several)


def test_corrupt_images_are_left_out(random_encoder, write_images, tmp_path):
  """Of images without labels; names stay with their embeddings."""
  write_images(tmp_path / 'images', 5)
  (tmp_path / 'images' / '2.jpg').write_bytes(b'corrupt')
  settings = _write_encoder(tmp_path, random_encoder, channels=3, crop_size=16)
  source = sources.create(f'folder:{tmp_path / "images"}', 'train')
  found = embed.embed(
    settings, source, init_from=str(tmp_path), batch_size=8, max_bad_fraction=0.5
  )
  assert found.labels.tolist() == [-1] * 4
  kept = [name.rpartition('/')[2] for name in found.names]
  assert sorted(kept) == ['0.jpg', '1.jpg', '3.jpg', '4.jpg']
  encoder = sslhsic.load(tmp_path)
  paths = [tmp_path / 'images' / name for name in kept]
  expected = encoder(encoder.preprocess(paths))
  np.testing.assert_allclose(found.embeddings, expected, rtol=1e-4, atol=1e-5)


def test_names_are_the_paths_of_the_files(random_encoder, write_images, tmp_path):
  """Also where a message has to escape what cannot be printed."""
  write_images(tmp_path / 'images', 2)
  name = 'Screenshot at 3.00\u202fPM.jpg'
  (tmp_path / 'images' / '0.jpg').rename(tmp_path / 'images' / name)
  settings = _write_encoder(tmp_path, random_encoder, channels=3, crop_size=16)
  source = sources.create(f'folder:{tmp_path / "images"}', 'train, random 2')
  assert any('\\u202f' in source.name(row) for row in range(2))
  found = embed.embed(
    settings, source, init_from=str(tmp_path), batch_size=8, max_bad_fraction=0.0
  )
  expected = {str(tmp_path / 'images' / x) for x in (name, '1.jpg')}
  assert set(found.names.tolist()) == expected


def test_encoder_of_one_channel_reads_files_in_gray(
  random_encoder, write_images, tmp_path
):
  write_images(tmp_path / 'images', 3)
  settings = _write_encoder(tmp_path, random_encoder, channels=1, crop_size=16)
  source = sources.create(f'folder:{tmp_path / "images"}', 'train')
  found = embed.embed(
    settings, source, init_from=str(tmp_path), batch_size=8, max_bad_fraction=0.0
  )
  encoder = sslhsic.load(tmp_path)
  expected = encoder(encoder.preprocess(source.paths))
  np.testing.assert_allclose(found.embeddings, expected, rtol=1e-4, atol=1e-5)
