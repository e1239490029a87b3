"""Transfer, on stand-ins of every kind of data set, in the format of TFDS."""

import json
import multiprocessing

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn import linear_model

from configs.transfer import digits_finetune, finetune, linear
from experiments import transfer
from sslhsic import parallel
from sslhsic.data import splits
from sslhsic.evaluation import metrics
from sslhsic.runs import measurement
from tests import tfds_data_sets

CLASSES = 3
KINDS = {
  'no_validation': ('train[:20]', 'train[20:]', 'top1'),
  'balanced': ('train, all but balanced 6', 'train, balanced 6', 'mean_per_class'),
  'official': ('train', 'validation', 'top1'),
  'multi_label': ('train', 'validation', 'mean_average_precision'),
  'files': ('train', 'validation', 'top1'),
}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory, encoded_image, write_images):
  """Where TFDS has prepared data sets, and a folder of files beside them."""
  directory = tmp_path_factory.mktemp('transfer')
  label = tfds.features.ClassLabel(num_classes=CLASSES)
  several = tfds.features.Sequence(label)
  one = {'label': label}, lambda number: {'label': number % CLASSES}
  many = (
    {'labels': several, 'labels_no_difficult': several},
    lambda number: {
      'labels': sorted({number % CLASSES, number % 2}),
      'labels_no_difficult': [number % CLASSES],
    },
  )
  two, three = {'train': 30, 'test': 11}, {'train': 18, 'validation': 12, 'test': 11}
  for name, labelling, counts in (
    ('no_validation', one, two),
    ('balanced', one, two),
    ('official', one, three),
    ('multi_label', many, three),
  ):
    tfds_data_sets.prepare(directory, name, *labelling, counts, encode=encoded_image)
  for split, first in (('train', 0), ('val', 100), ('test', 200)):
    for number in range(CLASSES):
      folder = directory / 'files' / split / f'class{number}'
      write_images(folder, 4, first=first + 10 * number)
  return directory


def _config(data_dir, protocol):
  config = digits_finetune.get_config()
  config.l2 = (1e-4, 1.0, 3)
  config.init_from = 'random'
  config.network.encoder_options = {
    'blocks_per_group': (1,),
    'channels_per_group': (8,),
  }
  config.data.update(crop_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
  config.augment.policy = 'flip'
  config.training.update(
    batch_size=8, learning_rates=(0.1,), weight_decays=(0.0, 1e-4), steps=(2,)
  )
  config.evaluation.batch_size = 8
  config.protocol = protocol
  config.only = tuple(KINDS)
  config.tasks = {
    kind: {
      'source': f'tfds:{kind}' if kind != 'files' else f'folder:{data_dir}/files',
      'train': train,
      'validation': validation,
      'test': 'test',
      'metric': metric,
    }
    for kind, (train, validation, metric) in KINDS.items()
  }
  config.published = {'BYOL': {'files': 12.3}}
  return config


@pytest.fixture
def few_devices(monkeypatch, data_dir):
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])


@pytest.mark.usefixtures('few_devices')
def test_linear_protocol_measures_every_kind(data_dir, tmp_path, monkeypatch, capsys):
  config = _config(data_dir, 'linear')
  config.only = ('balanced', 'multi_label', 'files')  # The others are other splits.
  measurement.run(transfer.measure, config, tmp_path)
  results = json.loads((tmp_path / 'results.json').read_text())
  assert list(results['tasks']) == list(config.only)
  for kind in config.only:
    assert results['tasks'][kind]['value'] == pytest.approx(
      _by_scikit_learn(tmp_path / kind, KINDS[kind][2]), abs=0.02
    )
  lines = capsys.readouterr().out.splitlines()
  (byol,) = [line for line in lines if line.startswith('BYOL')]
  assert byol.split() == ['BYOL', '12.3']
  # What is done is not done again, and embeddings are not extracted twice.
  (tmp_path / 'files' / 'results.json').unlink()
  monkeypatch.setattr('sslhsic.evaluation.encoder.FrozenEncoder.embed', None)
  measurement.run(transfer.measure, config, tmp_path)
  again = json.loads((tmp_path / 'results.json').read_text())
  assert again['tasks'] == results['tasks']
  # Of the tasks that are done some are enough; with another encoder they do not count.
  config.only = ('balanced', 'files')
  measurement.run(transfer.measure, config, tmp_path, free=('init_from', 'only'))
  some = json.loads((tmp_path / 'results.json').read_text())
  assert some['tasks'] == {name: results['tasks'][name] for name in config.only}
  config.only = ('balanced', 'multi_label', 'files')
  file = tmp_path / 'balanced' / 'results.json'
  kept = file.read_text()
  file.write_text(json.dumps(json.loads(kept) | {'encoder_fingerprint': '0123'}))
  with pytest.raises(ValueError, match=r'another one than when .* 0123 then'):
    measurement.run(transfer.measure, config, tmp_path, free=('init_from', 'only'))
  file.write_text(kept)
  # A task that fails is named, and the others are written.
  for file in (tmp_path / 'files').glob('*[nz]'):
    file.unlink()
  with pytest.raises(ValueError, match=r'results\.json: files: TypeError'):
    measurement.run(transfer.measure, config, tmp_path, free=('init_from', 'only'))
  rest = json.loads((tmp_path / 'results.json').read_text())
  assert rest['failed'].keys() == {'files'}
  assert rest['tasks'].keys() == {'balanced', 'multi_label'}


def _by_scikit_learn(directory, metric):
  """The value, from the embeddings on disk, at the penalty that was chosen."""
  found = json.loads((directory / 'results.json').read_text())
  parts = {}
  for part in transfer.PARTS:
    (file,) = directory.glob(f'embeddings-*-{part}.npz')
    with np.load(file, allow_pickle=False) as arrays:
      parts[part] = arrays['features'], arrays['labels']
  x, y = (
    np.concatenate([parts[part][i] for part in ('train', 'validation')])
    for i in range(2)
  )
  x_test, y_test = parts['test']
  model = linear_model.LogisticRegression(C=1 / (len(x) * found['l2']), max_iter=5000)
  if y.ndim == 1:
    scores = model.fit(x, y).decision_function(x_test)
    return float(metrics.create(metric)(scores, y_test))
  scores = [model.fit(x[of >= 0], of[of >= 0]).decision_function(x_test) for of in y.T]
  return metrics.mean_average_precision(np.stack(scores, axis=1), y_test)


def _alive_after_each_task(monkeypatch):
  """A list that gets the numbers of arrays and of worker processes after a task."""
  alive, do_task = [], transfer._do_task

  def counting(*args):
    result = do_task(*args)
    alive.append((len(jax.live_arrays()), len(multiprocessing.active_children())))
    return result

  monkeypatch.setattr(transfer, '_do_task', counting)
  return alive


@pytest.mark.usefixtures('few_devices')
def test_fine_tuning_measures_one_label_and_several(data_dir, tmp_path, monkeypatch):
  config = _config(data_dir, 'finetune')
  config.only = ('balanced', 'multi_label')
  config.retrain = False
  config.data.num_workers = 1
  alive = _alive_after_each_task(monkeypatch)
  measurement.run(transfer.measure, config, tmp_path)
  assert alive[0] == alive[1]
  assert alive[1][1] == 0
  results = json.loads((tmp_path / 'results.json').read_text())
  assert list(results['tasks']) == ['balanced', 'multi_label']
  assert all(0 < task['value'] <= 1 for task in results['tasks'].values())
  file = tmp_path / 'multi_label' / 'results.json'
  found = json.loads(file.read_text())
  assert [x['weight_decay'] for x in found['validation_scores']] == pytest.approx(
    [0, 1e-4 * 64 / 8 / 0.1]
  )
  # Where the report had failed, it is made again, and the training is not.
  failed = {name: found[name] for name in ('protocol', 'encoder')}
  file.write_text(json.dumps(failed | {'failed': {'report': 'InputError'}}))
  monkeypatch.setattr('experiments.finetune.FineTune.step', None)
  measurement.run(transfer.measure, config, tmp_path)
  again = json.loads((tmp_path / 'results.json').read_text())
  assert again['tasks'] == results['tasks']


@pytest.mark.usefixtures('few_devices')
def test_missing_data_sets_are_all_named_at_the_start(data_dir, tmp_path):
  config = _config(data_dir, 'linear')
  config.tasks.official.source = 'tfds:nothing'
  config.tasks.files.source = 'folder:/nowhere'
  with pytest.raises(ValueError, match='2 of 5 data sets') as error:
    measurement.run(transfer.measure, config, tmp_path)
  assert 'official: tfds:nothing is not prepared' in str(error.value)
  assert "files: there is no folder '/nowhere'" in str(error.value)
  assert not (tmp_path / 'no_validation').exists()
  config.only = ('food',)
  with pytest.raises(ValueError, match='name some of balanced'):
    transfer.chosen(config)


def test_splits_have_the_published_sizes():
  """Sizes of TFDS's splits, cut as configured, are those of the paper."""
  sizes = {
    'food101': ({'train': 75750, 'validation': 25250}, (68175, 7575, 25250)),
    'cifar10': ({'train': 50000, 'test': 10000}, (45000, 5000, 10000)),
    'cifar100': ({'train': 50000, 'test': 10000}, (44933, 5067, 10000)),
    'sun397': ({'train': 19850, 'test': 19850}, (15880, 3970, 19850)),
    'cars': ({'train': 8144, 'test': 8041}, (6494, 1650, 8041)),
    'pets': ({'train': 3680, 'test': 3669}, (2940, 740, 3669)),
  }
  tasks = linear.tasks()
  for name, (there, expected) in sizes.items():
    counts = [_size(tasks[name][part], there) for part in transfer.PARTS]
    assert counts == list(expected), name
  assert finetune.get_config().tasks.to_dict() == tasks


def _size(split, there):
  parts, subset = splits.parse(split)
  count = sum(
    len(range(there[name])[part]) for name, part in splits.ranges(parts, there, '')
  )
  if subset is None:
    return count
  drawn = subset.count(count)
  return count - drawn if subset.is_rest else drawn
