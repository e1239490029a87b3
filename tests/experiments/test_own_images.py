"""Pre-training on folders of images, as a user runs it."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import tiny_runs
from sslhsic.pretraining import step
from tests import idx_files

# A run of 5 steps of a small network.
TINY = (
  '--config.training.batch_size=8',
  '--config.loss.ssl_hsic.block_size=2',
  '--config.training.epochs=1',
  '--config.training.warmup_epochs=0',
  '--config.network.head.hidden_size=16',
  '--config.network.encoder_options={"channels_per_group": (4,), '
  '"blocks_per_group": (1,)}',
  '--config.evaluation.batch_size=16',
  '--config.evaluators.knn.k=5',
  '--config.evaluation.labels_per_class=(1,)',
)


@pytest.fixture
def pretrain_on(tmp_path, run_program):
  """A function that pre-trains on a source, in 'run' of the test's directory.

  It returns the exit code, standard output and standard error. With variables, it does
  so in a process of its own.
  """

  def run(source, *arguments, config='imagenette', crop_size=32, **variables):
    command = (
      f'--config=configs/pretrain/{config}.py',
      f'--config.data.crop_size={crop_size}',
      *TINY,
      f'--workdir={tmp_path / "run"}',
      f'--config.data.source={source}',
      *arguments,
    )
    if not variables:
      return run_program('pretrain', *command)
    started = ('-m', 'experiments.pretrain', *command)
    program = tiny_runs.Program(*started, devices=1, **variables)
    return program.end(), program.out, program.err

  return run


@pytest.fixture
def split_folder(tmp_path, write_images):
  """40 images to train on and 20 to test on, in two classes; one of them is corrupt."""
  folder = tmp_path / 'images'
  write_images(folder / 'train' / 'cat', 20)
  write_images(folder / 'train' / 'dog', 20, first=100, suffix='.png')
  write_images(folder / 'val' / 'cat', 10, first=50)
  write_images(folder / 'val' / 'dog', 10, first=150)
  (folder / 'train' / 'cat' / '7.jpg').write_bytes(b'corrupt')
  return folder


@pytest.fixture
def spied_tensorflow(tmp_path):
  """Where a package 'tensorflow' lies that leaves a file when it is imported."""
  package = tmp_path / 'spy' / 'tensorflow'
  package.mkdir(parents=True)
  trace = tmp_path / 'imported'
  (package / '__init__.py').write_text(f'open({str(trace)!r}, "w").close()')
  return package.parent, trace


def test_folder_with_classes_is_trained_on_and_evaluated(
  tmp_path, split_folder, spied_tensorflow, pretrain_on
):
  path, trace = spied_tensorflow
  code, _, err = pretrain_on(
    f'folder:{split_folder}',
    '--config.data.num_workers=1',
    '--config.data.max_bad_fraction=0.1',
    PYTHONPATH=os.pathsep.join([str(path), os.environ.get('PYTHONPATH', '')]),
  )
  assert code == 0, err
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert {'knn_top1', 'online_top1', 'embedding_std'} <= results.keys()
  assert results['skipped_images'] == 1
  assert f'skipped {split_folder}/train/cat/7.jpg' in err
  assert 'leaked' not in err  # Memory shared with the workers.
  assert not trace.exists()  # TensorFlow was not imported.


def test_grey_images_in_idx_files_are_trained_on_and_evaluated(tmp_path, pretrain_on):
  rng = np.random.default_rng(0)
  folder = tmp_path / 'clothing'
  folder.mkdir()
  for split, count in (('train', 60), ('t10k', 20)):
    images = rng.integers(0, 256, (count, 14, 14), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 2
    for kind, array in (('images', images), ('labels', labels)):
      name = f'{split}-{kind}-idx{array.ndim}-ubyte'
      (folder / name).write_bytes(idx_files.encode(array))
  code, out, err = pretrain_on(
    f'idx:{folder}',
    '--config.data.train_split=train[:40]',
    '--config.evaluation.train_split=train[:40]',
    '--config.evaluation.test_split=train[40:]',
    '--config.data.num_workers=0',
    config='fashion_mnist_small',
    crop_size=0,
  )
  assert code == 0, err
  assert '40 images, 5 steps' in out
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert results['representations'].keys() == {'pixels', 'untrained', 'trained'}
  assert 'train is train[:40], test is train[40:]' in results['protocol']['data']


def test_folder_without_labels_is_trained_on_and_measured_on_another(
  tmp_path, write_images, split_folder, pretrain_on
):
  write_images(tmp_path / 'unlabelled', 40)
  code, out, err = pretrain_on(
    f'folder:{tmp_path / "unlabelled"}',
    '--config.evaluation.test_split=train[50%:]',
    '--config.data.num_workers=0',
    '--config.data.max_bad_fraction=0.1',
    "--config.evaluation.representations=('pixels', 'untrained', 'trained')",
    '--config.evaluators.names=("knn", "online_classifier", "collapse", "lidar")',
    f'--config.evaluators.knn.source=folder:{split_folder}',
    '--config.evaluators.knn.train_split=train',
    '--config.evaluators.knn.test_split=validation',
    '--config.evaluators.lidar.num_images=6',
    '--config.evaluators.lidar.num_views=4',
  )
  assert code == 0, err
  assert 'no online_classifier and no comparison of representations' in out
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert {'knn_top1', 'embedding_std', 'effective_rank', 'lidar'} <= results.keys()
  assert not {'online_top1', 'linear_top1'} & results.keys()
  assert results['protocol']['knn_top1'].endswith(
    f'train is train, test is validation of folder:{split_folder}'
  )


def test_too_many_corrupt_images_end_the_run_in_one_clear_line(
  split_folder, pretrain_on
):
  code, _, err = pretrain_on(f'folder:{split_folder}', '--config.data.num_workers=1')
  assert code == 1
  assert 'Traceback' not in err
  assert (
    err.strip()
    .splitlines()[-1]
    .startswith(
      'error: 1 of 40 images cannot be used, more than a fraction of 0.001: '
      f'{split_folder}/train/cat/7.jpg: 7 bytes are no image'
    )
  )


def test_data_set_that_is_not_prepared_ends_in_one_clear_line(tmp_path, pretrain_on):
  data = 'tfds:imagenette/160px-v2'
  code, _, err = pretrain_on(data, TFDS_DATA_DIR=str(tmp_path))
  assert code == 1
  (line,) = err.strip().splitlines()
  assert line.startswith(
    f'error: {data} is not prepared in {tmp_path}; prepare it with'
  )


def test_images_without_label_add_nothing_to_the_classifier():
  logits = jnp.array([[2.0, 0.0], [0.0, 3.0]])
  loss, top1 = jax.jit(step.classify)(logits, jnp.array([-1, 1]))
  np.testing.assert_allclose(loss, np.log1p(np.exp(-3)) / 2, rtol=1e-6)
  assert top1 == 0.5
