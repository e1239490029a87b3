"""What is measured during pre-training: on which data, in which order, how often."""

import functools

import jax
import numpy as np
import pytest
from sklearn import neighbors

from configs.pretrain import digits
from experiments import pretrain
from sslhsic import parallel
from sslhsic.data import digits_source, loader, sources
from sslhsic.evaluation import diagnostics
from sslhsic.pretraining import build, extraction, step, views
from sslhsic.pretraining import evaluation as evaluation_lib
from sslhsic.weights import files, layouts
from sslhsic.weights import settings as settings_lib


def _config(**changes):
  config = digits.get_config()
  config.augment.views = ({'policy': 'flip'},) * 2  # Compiles in half the time.
  config.data.train_split = 'train[:64]'
  config.evaluation.update(train_split='train[:48]', test_split='test[:40]')
  config.evaluation.update(batch_size=32, representations=())
  config.training.batch_size = 16
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.network.head = {'hidden_size': 16, 'output_size': 8}
  config.network.encoder_options = {
    'blocks_per_group': (1,),
    'channels_per_group': (8,),
  }
  with config.unlocked():
    config.evaluators.update(changes)
  return config


class _SlowlyLabelled(sources.ArraySource):
  """Nothing says before the examples are read that some have no label."""

  has_slow_labels = True


@pytest.fixture
def _made_up(monkeypatch):
  """Sources: other digits, digits without labels, of one class less, in colour."""

  def create(kind, split):
    found = digits_source.create(
      '', 'train[100:160]' if split == 'train' else 'test[50:80]'
    )
    images = np.repeat(found.images, 3, axis=3) if kind == 'colour' else found.images
    labels = np.minimum(found.labels, 8) if kind == 'nine' else found.labels
    if kind == 'unlabelled':
      return sources.ArraySource(images, np.full_like(labels, -1), 0)
    if kind == 'several':  # Of which an image may have any number.
      labels = np.eye(10, dtype=np.int32)[labels]
    if kind in ('partly', 'slow'):
      labels = np.where(np.arange(len(labels)) % 3, labels, -1).astype(np.int32)
    of_kind = _SlowlyLabelled if kind == 'slow' else sources.ArraySource
    return of_kind(images, labels, 9 if kind == 'nine' else 10)

  monkeypatch.setitem(sources.SOURCES, 'made_up', create)


class _Run:
  """The evaluation of a configuration, and an untrained network."""

  def __init__(self, config):
    of_views = views.parse(config.augment.views)
    source = sources.create(config.data.source, config.data.train_split)
    self.training = build.training(config, of_views, source)
    self.extraction = extraction.Extraction(config, self.training, of_views)
    self.evaluation = evaluation_lib.Evaluation(
      config, self.extraction, source.num_classes, lambda: self.network
    )
    self.config, self._source = config, source

  @functools.cached_property
  def network(self):
    images = np.zeros((1, 8, 8, 1))
    state = step.initial_state(self.training, jax.random.key(0), images, 8)
    state = parallel.replicate(state)
    network = state.params, state.network_state
    return self.extraction.calibrated(network, self._source)

  def measure(self):
    return self.evaluation.measure(self.network)


OTHER = {'source': 'made_up:other', 'train_split': 'train', 'test_split': 'test'}


def test_names_choose_what_is_measured_in_their_order():
  run = _Run(_config(names=('collapse', 'lidar', 'knn'), lidar={'num_images': 20}))
  expected = ['embedding_std', 'effective_rank', 'lidar', 'knn_top1']
  assert list(run.measure()) == run.evaluation.names == expected
  assert list(run.evaluation.protocol()) == [*expected, 'data', 'features']


@pytest.mark.usefixtures('_made_up')
def test_evaluator_of_another_source_has_its_own_name():
  few = {'kind': 'knn', 'k': 1}
  run = _Run(_config(names=('knn', 'here', 'there'), here=few, there=few | OTHER))
  results = run.measure()
  assert list(results) == ['knn_top1', 'here_knn_top1', 'there_knn_top1']
  for name, train, test in [
    ('here', ('digits', 'train[:48]'), ('digits', 'test[:40]')),
    ('there', ('made_up:other', 'train'), ('made_up:other', 'test')),
  ]:
    train, test = (
      run.extraction.of_split(run.network, extraction.Part(*part), ['embedding'])
      for part in (train, test)
    )
    nearest = neighbors.KNeighborsClassifier(1, metric='cosine')
    nearest.fit(train['embedding'], train['label'])
    expected = nearest.score(test['embedding'], test['label'])
    assert results[f'{name}_knn_top1'] == pytest.approx(expected)
  protocol = run.evaluation.protocol()
  assert protocol['there_knn_top1'].endswith(
    'one pass over test; train is train, test is test of made_up:other'
  )
  assert protocol['here_knn_top1'].endswith('one pass over test')


@pytest.mark.usefixtures('_made_up')
@pytest.mark.parametrize('kind', ['partly', 'slow'])
def test_only_what_needs_labels_leaves_out_images_without(kind):
  config = _config(names=('collapse', 'knn'), knn={'k': 5})
  config.data.update(source=f'made_up:{kind}', train_split='train')
  config.evaluation.update(train_split='train', test_split='test')
  run = _Run(config)
  results = run.measure()
  train, test = (
    run.extraction.of_split(
      run.network, extraction.Part(f'made_up:{kind}', split), ['embedding']
    )
    for split in ('train', 'test')
  )
  expected = diagnostics.effective_rank(test['embedding'])
  assert results['effective_rank'] == pytest.approx(expected)
  nearest = neighbors.KNeighborsClassifier(
    5, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.07)
  )
  has_label = train['label'] >= 0
  assert has_label.sum() == 40
  nearest.fit(train['embedding'][has_label], train['label'][has_label])
  has_label = test['label'] >= 0
  expected = nearest.score(test['embedding'][has_label], test['label'][has_label])
  assert results['knn_top1'] == pytest.approx(expected)


def test_references_are_the_initial_network_and_a_file(tmp_path):
  run = _Run(_config(names=()))
  (params, network_state), config = (
    jax.tree.map(lambda x: x[0], run.network),
    run.config,
  )
  settings = settings_lib.of_run(config.to_dict(), 'a test')
  of_encoder = lambda tree: {m: x for m, x in tree.items() if m.startswith('encoder/')}
  trees = map(of_encoder, (params, network_state))
  tensors = layouts.to_tensors(layouts.HAIKU, *trees)
  files.write(tmp_path / files.WEIGHTS_NAME, tensors, settings)
  of_file = {'kind': 'reference_cka', 'reference': str(tmp_path)}
  again = _Run(_config(names=('reference_cka', 'file'), file=of_file))
  # The network of this run is the file's, and its own initial one.
  assert again.measure() == {
    'reference_cka': pytest.approx(1, abs=1e-4),
    'file_reference_cka': pytest.approx(1, abs=1e-4),
  }
  nowhere = of_file | {'reference': str(tmp_path / 'nowhere')}
  with pytest.raises(ValueError, match=r'config\.evaluators\.file: .*nowhere'):
    _Run(_config(names=('file',), file=nowhere))


@pytest.mark.usefixtures('_made_up')
def test_every_image_goes_through_the_network_once(monkeypatch):
  passes = []
  one_pass = loader.one_pass

  def counted(source, **settings):
    passes.append(len(source))
    return one_pass(source, **settings)

  names = ('knn', 'online_classifier', 'collapse', 'rankme', 'projection', 'there')
  projection = {'kind': 'rankme', 'features': 'projection'}
  there = {'kind': 'collapse', 'source': 'made_up:other', 'test_split': 'test'}
  run = _Run(_config(names=names, projection=projection, there=there))
  network = run.network
  monkeypatch.setattr(loader, 'one_pass', counted)
  run.evaluation.measure(network)
  assert sorted(passes) == [30, 40, 48]


def test_second_evaluation_compiles_nothing(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
  names = ('knn', 'online_classifier', 'collapse', 'rankme', 'alpha_req', 'lidar')
  config = _config(names=names, lidar={'num_images': 20})
  config.training.epochs = 1
  config.training.warmup_epochs = 0
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  experiment.step(0, jax.random.key_data(jax.random.key(0)))
  experiment.evaluate(1, jax.random.key_data(jax.random.key(0)))
  events = []
  listener = lambda name, *_, **__: events.append(name)
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    results = experiment.evaluate(1, jax.random.key_data(jax.random.key(0)))
    assert [name for name in events if 'compile' in name] == []
    jax.jit(lambda x: x + 1)(1.0)
    assert any('compile' in name for name in events)
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert all(np.isfinite(value) for value in results.values())


# Views


def _views(config, network, num_images=20, num_views=4):
  """Embeddings of augmented test images by a network of the host."""
  of_views = _Run(config).extraction.of_views
  part = extraction.Part('digits', 'test[:40]')
  arrays = of_views(
    parallel.replicate(network), part, ['embedding'], num_images, num_views
  )
  return arrays['embedding']


@pytest.fixture(scope='module')
def network():
  return parallel.first(_Run(_config()).network)


@pytest.fixture(scope='module')
def embedded(network):
  return _views(_config(), network)


def test_views_are_those_of_a_training_on_these_images(network):
  config = _config()
  config.augment.views = ({'policy': 'digits'}, {'policy': 'gray', 'size': 8})
  found = _views(config, network, num_images=16, num_views=2)
  crops = [view.crop(0, 'bicubic') for view in views.parse(config.augment.views)]
  source = sources.create('digits', 'test[:40]')
  batch = next(loader.views(source, batch_size=16, seed=0, crops=crops))
  training = _Run(config).training
  augmented = step.augment_views(training, jax.random.key(0), batch)
  for number, images in enumerate(augmented):
    outputs, _ = training.model.online.apply(*network, None, images, False)
    np.testing.assert_allclose(
      found[:, number], outputs.embedding, rtol=1e-3, atol=1e-4
    )


def test_views_do_not_depend_on_batches_and_devices(monkeypatch, network, embedded):
  assert embedded.shape == (20, 4, 8)
  config = _config()
  config.evaluation.batch_size = 8
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])
  np.testing.assert_allclose(_views(config, network), embedded, rtol=1e-3, atol=1e-4)


def test_views_are_of_a_seed(network, embedded):
  config = _config()
  np.testing.assert_array_equal(_views(config, network), embedded)
  config.seed = 1
  assert np.mean(np.abs(_views(config, network) - embedded)) > 0.01


def test_local_views_are_left_out(network, embedded):
  """They are smaller than what an evaluation sees."""
  config = _config()
  local = {'policy': 'flip', 'size': 4, 'is_global': False}
  config.augment.views = (*config.augment.views, local)
  np.testing.assert_allclose(_views(config, network), embedded, rtol=1e-4, atol=1e-5)


# What is left out, and what is wrong


@pytest.mark.usefixtures('_made_up')
def test_evaluators_without_labels_are_left_out_and_named():
  config = _config(names=('knn', 'online_classifier', 'collapse'))
  config.data.update(source='made_up:unlabelled', train_split='train')
  config.evaluation.update(train_split='train', test_split='test')
  config.evaluation.representations = ('pixels', 'untrained', 'trained')
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  experiment.step(0, jax.random.key_data(jax.random.key(0)))
  assert (
    'no knn and no online_classifier and no comparison of representations, for lack '
    'of labels' in experiment.summary
  )
  assert list(experiment.evaluate(0, jax.random.key_data(jax.random.key(0)))) == [
    'embedding_std',
    'effective_rank',
  ]


@pytest.mark.usefixtures('_made_up')
def test_labelled_source_is_measured_on_without_labels_to_train_with():
  config = _config(names=('knn', 'online_classifier'), knn={'k': 5} | OTHER)
  config.evaluators.online_classifier.update(source='made_up:other', test_split='test')
  config.data.update(source='made_up:unlabelled', train_split='train')
  run = _Run(config)
  assert run.evaluation.names == ['knn_top1']
  assert run.evaluation.skipped == ['online_classifier']


@pytest.mark.usefixtures('_made_up')
def test_images_with_several_labels_are_trained_on_without_a_classifier():
  config = _config()
  config.evaluators.names = ('collapse',)
  config.data.update(source='made_up:several', train_split='train')
  config.evaluation.update(train_split='train', test_split='test')
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  scalars = experiment.step(0, jax.random.key_data(jax.random.key(0)))
  assert np.isfinite(scalars['loss'])
  assert not [name for name in scalars if 'classifier' in name or 'top1' in name]


UNLABELLED = OTHER | {'source': 'made_up:unlabelled'}


@pytest.mark.usefixtures('_made_up')
@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'names': ('knn', 'k_means')}, "evaluators.k_means: unknown evaluator 'k_means'"),
    ({'knn': {'neighbours': 3}}, "evaluators.knn: .* no setting 'neighbours'"),
    ({'knn': {'k': 49}}, 'evaluators.knn: k is 49, but the train split has 48 images'),
    ({'knn': {'source': 'mnist'}}, "evaluators.knn: unknown data source 'mnist'"),
    ({'knn': {'test_split': 'val'}}, "evaluators.knn: .*'val'"),
    ({'knn': UNLABELLED}, 'evaluators.knn: .* has no label'),
    (
      {'online_classifier': {'source': 'made_up:nine', 'test_split': 'test'}},
      r'evaluators.online_classifier: numbers of classes differ \(9 of test, 10 of the',
    ),
    (
      {'collapse': {'source': 'made_up:colour', 'test_split': 'test'}},
      'evaluators.collapse: images have 3 channels, those of the training 1',
    ),
    (
      {'names': ('lidar',), 'lidar': {'num_images': 41}},
      'evaluators.lidar: num_images is 41, but the test split has 40; use fewer',
    ),
  ],
)
def test_mistake_is_named_at_the_start(changes, message):
  with pytest.raises(ValueError, match=f'config.{message}'):
    pretrain.Pretrain('train', jax.random.key(0), _config(**changes))


def test_split_of_the_evaluation_is_named_where_no_evaluator_has_its_own():
  config = _config()
  config.evaluation.test_split = 'val'
  with pytest.raises(ValueError, match=r"config\.evaluation\.test_split: .*'val'"):
    pretrain.Pretrain('train', jax.random.key(0), config)


@pytest.mark.parametrize(
  'names', [('trained', 'pixels'), ('pixels', 'untrained'), ('trained', 'rubbish')]
)
def test_what_cannot_be_compared_is_refused(names):
  config = _config(names=('collapse',))
  config.evaluation.representations = names
  with pytest.raises(ValueError, match=r'evaluation\.representations is \(.*in this'):
    pretrain.Pretrain('train', jax.random.key(0), config)


def test_trained_encoder_alone_is_measured_the_same(tmp_path, capsys):
  config = _config(names=('collapse',))
  config.evaluation.labels_per_class = (1,)
  found = {}
  for names in (('trained',), ('pixels', 'untrained', 'trained')):
    config.evaluation.representations = names
    directory = tmp_path / str(len(names))
    directory.mkdir()
    experiment = pretrain.Pretrain('train', jax.random.key(0), config)
    experiment.step(0, jax.random.key_data(jax.random.key(0)))
    found[names] = experiment.report(0, directory)
    assert (directory / 'embeddings.png').exists() == (len(names) > 1)
  alone, among = found.values()
  assert alone['linear_top1'] == among['linear_top1']
  assert list(alone['representations']) == ['trained']
  assert alone['few_label_top1']['trained'] == among['few_label_top1']['trained']
  assert 'pixels' not in capsys.readouterr().out.splitlines()[2]


def test_comparison_is_checked_at_the_start():
  config = _config(names=('collapse',))
  config.evaluation.representations = ('pixels', 'untrained', 'trained')
  config.evaluation.labels_per_class = (1, 30)
  message = r'config\.evaluation\.labels_per_class: class \d has \d+ examples, but 30'
  with pytest.raises(ValueError, match=message):
    pretrain.Pretrain('train', jax.random.key(0), config)
  config.evaluators.knn.k = 49
  with pytest.raises(ValueError, match=r'config\.evaluators\.knn\.k is 49, but train'):
    pretrain.Pretrain('train', jax.random.key(0), config)
