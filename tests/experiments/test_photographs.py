"""Tiles of photographs, from the training to the report, as a user does it."""

import json
import pathlib

import cv2
import numpy as np
import pytest
import skimage
import sklearn.datasets

# scikit-image's and scikit-learn's own, which come with the packages.
PHOTOGRAPHS = ('china.jpg', 'flower.jpg', 'astronaut.png', 'coffee.png', 'chelsea.png')
SIDE = 96
TINY_NETWORK = (
  '--config.network.encoder_options={"channels_per_group": (8,), '
  '"blocks_per_group": (1,)}'
)


def _read(name):
  folders = [
    pathlib.Path(skimage.__file__).parent / 'data',
    pathlib.Path(sklearn.datasets.__file__).parent / 'images',
  ]
  (path,) = (folder / name for folder in folders if (folder / name).exists())
  return cv2.imread(str(path))


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
  """A folder with a class for each photograph: JPEGs, as cameras and programs write."""
  folder = tmp_path_factory.mktemp('tiles')
  for name in PHOTOGRAPHS:
    pixels = _read(name)
    rows, columns = (side // SIDE for side in pixels.shape[:2])
    places = np.random.default_rng(0).permutation(rows * columns)[:12]
    for number, place in enumerate(places):
      top, left = (SIDE * x for x in divmod(int(place), columns))
      split = 'train' if number < 8 else 'val'
      path = folder / split / name[:-4] / f'{place}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      assert cv2.imwrite(str(path), pixels[top : top + SIDE, left : left + SIDE])
  return folder


@pytest.fixture(scope='module')
def run(run_program):
  """A function that runs a program to its end, and returns its output."""

  def finish(program, *arguments):
    code, out, err = run_program(program, *arguments)
    assert code == 0, err
    return out

  return finish


def _results(workdir):
  return json.loads((workdir / 'results.json').read_text())


def _data(tiles, *names):
  """Flags that make all data of an evaluation the tiles."""
  flags = [f'--config.data.{name}.source=folder:{tiles}' for name in names]
  splits = {'train': 'train', 'validation': 'train[:50%]', 'test': 'val'}
  return [
    *flags,
    *(f'--config.data.{name}.split={splits[name]}' for name in names),
    f'--config.data.crop_size={SIDE}',
    '--config.data.allow_overlap=True',
    TINY_NETWORK,
  ]


@pytest.fixture(scope='module')
def pretrained(run, tiles, tmp_path_factory):
  """A run of five steps with BYOL's augmentation of colours."""
  workdir = tmp_path_factory.mktemp('runs') / 'pretrained'
  out = run(
    'pretrain',
    '--config=configs/pretrain/imagenette.py',
    f'--workdir={workdir}',
    f'--config.data.source=folder:{tiles}',
    f'--config.data.crop_size={SIDE}',
    '--config.data.num_workers=1',
    TINY_NETWORK,
    '--config.network.head.hidden_size=16',
    '--config.training.batch_size=8',
    '--config.training.epochs=1',
    '--config.training.warmup_epochs=0',
    '--config.loss.ssl_hsic.block_size=2',
    '--config.evaluation.batch_size=16',
    '--config.evaluation.representations=()',
    '--config.evaluators.knn.k=5',
  )
  assert '40 images, 5 steps' in out
  return workdir


def test_tiles_of_a_photograph_are_alike(pretrained):
  """To any encoder: so the images and their classes are right."""
  results = _results(pretrained)
  assert results['knn_top1'] > 0.4  # Of five classes.
  assert results['skipped_images'] == 0


def test_encoder_is_evaluated_exported_and_read_again(run, tiles, pretrained, tmp_path):
  out = tmp_path / 'out'
  run('export', f'--init_from={pretrained}', '--format=haiku', f'--out={out}')
  found = {}
  for name, start in (('of_run', pretrained), ('of_export', out)):
    run(
      'knn',
      '--config=configs/knn/imagenet.py',
      f'--workdir={tmp_path / name}',
      f'--config.init_from={start}',
      *_data(tiles, 'train', 'test'),
      '--config.network.encoder=resnet18',
      '--config.protocol.k=(5,)',
      '--config.evaluation.batch_size=16',
    )
    found[name] = _results(tmp_path / name)['knn_top1']
  assert found['of_run'] == found['of_export'] > 0.4


def test_linear_evaluation_and_report(run, tiles, pretrained):
  workdir = pretrained.parent / 'linear'
  run(
    'linear_eval',
    '--config=configs/linear_eval/imagenette.py',
    f'--workdir={workdir}',
    f'--config.init_from={pretrained}',
    *_data(tiles, 'train', 'validation', 'test'),
    '--config.data.crop_size=48',
    '--config.data.num_workers=0',
    '--config.optimizer.learning_rates=(0.4, 2.0)',
    '--config.training.batch_size=8',
    '--config.training.epochs=40',
    '--config.training.warmup_steps=0',
    '--config.evaluation.batch_size=16',
  )
  assert _results(workdir)['linear_top1'] > 0.4  # Of five classes.
  page = pretrained.parent / 'report.html'
  run('report', f'--output={page}', str(pretrained.parent))
  text = page.read_text()
  assert 'Augmented views' in text
  assert f'folder:{tiles}' in text
