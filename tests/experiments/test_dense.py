"""Segmentation and depth: devices, what is frozen and resumed runs."""

import json

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.depth import shapes as depth_shapes
from configs.segmentation import shapes as segmentation_shapes
from experiments import dense, depth, segmentation
from sslhsic import parallel
from sslhsic.data import shapes_source, sources
from sslhsic.data.errors import DecodeError
from sslhsic.networks import classifier, layers
from sslhsic.runs import runner
from sslhsic.weights import pretrained

PROGRAMS = {
  'segmentation': (segmentation.Segmentation, segmentation_shapes),
  'depth': (depth.Depth, depth_shapes),
}


def _config(task, **changes):
  config = PROGRAMS[task][1].get_config()
  config.init_from = 'random'
  config.network.encoder_options = {
    'blocks_per_group': (1, 1),
    'channels_per_group': (4, 8),
  }
  config.network.channels = (4, 4) if task == 'depth' else 4
  config.data.update({'crop': (32, 32)} if task == 'depth' else {'crop_size': 32})
  config.data.train.update(source='shapes:32', split='train[:24]')
  config.data.test.update(source='shapes:32', split='test[:11]')  # Does not divide.
  config.training.update(steps=3, warmup_steps=0, batch_size=8)
  config.evaluation.batch_size = 8
  config.runner.update(log_every=1, evaluate_every=0, checkpoint_every=1)
  config.update_from_flattened_dict(changes)
  return config


def _create(task, **changes):
  return PROGRAMS[task][0]('train', jax.random.key(0), _config(task, **changes))


def _train(experiment):
  scalars = [
    experiment.step(step, jax.random.key_data(jax.random.key(0))) for step in range(3)
  ]
  return jax.tree.map(float, scalars)


def _state(experiment):
  return jax.device_get(parallel.first(experiment.state))


@pytest.mark.parametrize('task', PROGRAMS)
def test_one_device_equals_several(task, monkeypatch):
  results = []
  for count in (1, 4):
    monkeypatch.setattr(parallel, 'devices', lambda n=count: jax.devices()[:n])
    experiment = _create(task)
    scalars = _train(experiment)
    scores = experiment.evaluate(3, jax.random.key_data(jax.random.key(0)))
    results.append((scalars, scores, _state(experiment)))
  one, several = results
  for a, b in zip(one[0], several[0], strict=True):
    assert b == pytest.approx(a, rel=2e-4)
  assert several[1] == pytest.approx(one[1], rel=1e-3, abs=2e-3)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  jax.tree.map(close, one[2], several[2])
  assert one[0][-1]['loss'] < one[0][0]['loss']


def _scaled(x, *, name, **_):
  """In the place of batch norm, whose statistics depend on the microbatch."""
  shape = (1,) * (x.ndim - 1) + x.shape[-1:]
  return x * hk.get_parameter(f'{name}_scale', shape, init=jnp.ones)


@pytest.mark.parametrize('task', PROGRAMS)
def test_microbatches_take_the_steps_of_the_whole_batch(task, monkeypatch):
  """Images have different numbers of pixels that count."""
  monkeypatch.setattr(layers, 'batch_norm', _scaled)
  results = []
  for devices, count in ((1, 1), (2, 2)):
    monkeypatch.setattr(parallel, 'devices', lambda n=devices: jax.devices()[:n])
    changes = {'training.num_microbatches': count}
    experiment = _create(task, **changes)
    results.append((_train(experiment), _state(experiment)))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, *results)


@pytest.mark.parametrize('frozen', ['encoder', 'batch norm'])
@pytest.mark.parametrize('start', ['a run', 'random'])
def test_what_is_frozen_stays_as_it_is(frozen, start, monkeypatch):
  is_norm = frozen == 'batch norm'
  load = pretrained.load  # Any values will do for those of a run.
  monkeypatch.setattr(pretrained, 'load', lambda _, *x, **y: load('random', *x, **y))
  changes = {
    'init_from': start,
    'training.train_encoder': is_norm,
    'training.freeze_batch_norm': is_norm,
  }
  experiment = _create('segmentation', **changes)
  before = _state(experiment)
  _train(experiment)
  after = _state(experiment)
  stays = lambda module: (
    module.startswith(f'{classifier.ENCODER}/')
    and (not is_norm or 'batchnorm' in module)
  )
  for module, leaves in before.network.params.items():
    for name, value in leaves.items():
      assert np.array_equal(after.network.params[module][name], value) == stays(module)
  keys = {x for path, _ in _leaves(after.opt_state) for x in path}
  optimised = {x.key for x in keys if isinstance(x, jax.tree_util.DictKey)}
  assert {x for x in before.network.params if stays(x)}.isdisjoint(optimised)
  for module, leaves in before.network.network_state.items():
    is_kept = np.array_equal(
      after.network.network_state[module]['average'], leaves['average']
    )
    assert is_kept == module.startswith(f'{classifier.ENCODER}/')
  what = 'batch norm of the encoder frozen' if is_norm else 'head on the frozen encoder'
  assert what in experiment.summary
  assert what in experiment._how_trained()


def test_random_encoder_that_is_frozen_has_the_statistics_of_a_batch():
  experiment = _create('segmentation', **{'training.train_encoder': False})
  start = _state(experiment).network.network_state
  encoder = f'{classifier.ENCODER}/stem_batchnorm/~/'
  source = experiment._sources['train']
  make = experiment.task.test_example
  images = [make(None, source[i])['image'] for i in range(8)]
  mean, std = (np.array(experiment._config.data[x]) for x in ('mean', 'std'))
  images = ((np.stack(images) / 255 - mean) / std).astype(np.float32)
  w = _state(experiment).network.params[f'{classifier.ENCODER}/stem_conv']['w']
  convolved = jax.lax.conv_general_dilated(
    images, w, (2, 2), [(3, 3)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  np.testing.assert_allclose(
    start[f'{encoder}mean_ema']['average'].ravel(),
    convolved.mean(axis=(0, 1, 2)),
    rtol=1e-3,
    atol=1e-5,
  )


def _leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.parametrize('task', PROGRAMS)
def test_run_resumes_and_reports(task, tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:4])
  experiment_class, _ = PROGRAMS[task]
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  runner.Runner(experiment_class, _config(task), whole, 'train_and_eval').run()
  interrupted = runner.Runner(experiment_class, _config(task), parts, 'train')
  interrupted._experiment.num_steps = 2
  interrupted.run()
  runner.Runner(experiment_class, _config(task), parts, 'train_and_eval').run()
  results = [
    json.loads((path / 'results.json').read_text(encoding='utf-8'))
    for path in (whole, parts)
  ]
  metric = {'segmentation': 'mean_iou', 'depth': 'delta1'}[task]
  assert results[0][metric] == results[1][metric]
  assert 'shapes:32 test[:11]' in results[0]['protocol'][metric]
  assert (whole / 'figures' / f'{task}.png').stat().st_size > 1000


@pytest.mark.parametrize('fault', ['image', 'figure'])
def test_scores_do_not_need_the_first_images(fault, tmp_path, monkeypatch):
  """Of 11 test images one may be bad, also if it is one of the few that are shown."""
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])
  changes = {'data.max_bad_fraction': 0.1, 'training.steps': 1}
  if fault == 'image':
    read = shapes_source.ShapesSource.__getitem__
    bad = sources.create('shapes:32', 'test').rows[1].tolist()

    def fail(source, row):
      if source.rows[row].tolist() == bad:
        raise DecodeError('truncated')
      return read(source, row)

    monkeypatch.setattr(shapes_source.ShapesSource, '__getitem__', fail)
  else:
    monkeypatch.setattr('sslhsic.plots.sheets.sheet', lambda *_: 1 / 0)
  config = _config('segmentation', **changes)
  made = runner.Runner(segmentation.Segmentation, config, tmp_path, 'train_and_eval')
  if fault == 'image':
    made.run()
  else:
    with pytest.raises(runner.TrainingError, match=r'segmentation\.png: ZeroDivision'):
      made.run()
  assert 0 <= json.loads((tmp_path / 'results.json').read_text())['mean_iou'] <= 1


RATES = {
  'training.learning_rates': (1e-6, 0.1, 1e30),
  'retrain': True,
  'data.validation.source': 'shapes:32',
  'data.validation.split': 'train[24:35]',
}


class Killed(segmentation.Segmentation):
  """Ends the process, so to say, after a number of steps."""

  steps_left = 0

  def step(self, global_step, rng):
    if not Killed.steps_left:
      raise KeyboardInterrupt
    Killed.steps_left -= 1
    return super().step(global_step, rng)


def _run_grid(path, monkeypatch, experiment_class=segmentation.Segmentation):
  """Runs the grid; the experiment and the splits that were scored, in order."""
  scored = []
  score = dense.DenseExperiment._score
  monkeypatch.setattr(
    dense.DenseExperiment,
    '_score',
    lambda self, name, *x: scored.append(name) or score(self, name, *x),
  )
  config = _config('segmentation', **RATES)
  made = runner.Runner(experiment_class, config, path, 'train_and_eval')
  try:
    made.run()
  finally:
    monkeypatch.setattr(dense.DenseExperiment, '_score', score)
  return made._experiment, scored


def test_learning_rate_is_chosen_on_the_validation_split(tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])
  experiment, scored = _run_grid(tmp_path / 'whole', monkeypatch)
  assert scored == ['validation', 'validation', 'test']
  results = json.loads((tmp_path / 'whole' / 'results.json').read_text())
  found = [x['mean_iou'] for x in results['validation_scores']]
  assert found[2] is None  # It diverged.
  best = int(np.argmax(found[:2]))
  assert results['learning_rate'] == RATES['training.learning_rates'][best]
  assert not any(name.startswith('validation_mean') for name in results)
  protocol = results['protocol']['mean_iou']
  assert 'best of 3 by mean_iou on shapes:32 train[24:35], trained again' in protocol
  # The last training sees the examples of both splits.
  rows = {
    row for step in range(9, 12) for row in experiment.describe_batch(step)['row']
  }
  assert max(rows) >= 24
  assert len(experiment._sources['final']) == 35
  for steps in (2, 2, 7):  # Within a training, between two, and in the last one.
    Killed.steps_left = steps
    with pytest.raises(KeyboardInterrupt):
      _run_grid(tmp_path / 'killed', monkeypatch, Killed)
  resumed, _ = _run_grid(tmp_path / 'killed', monkeypatch)
  jax.tree.map(np.testing.assert_array_equal, resumed.best, experiment.best)
  assert resumed._trainings.scores == experiment._trainings.scores


def test_only_the_validation_split_is_evaluated_on_the_way(tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])
  for source in ('shapes:32', ''):
    changes = {
      'data.validation.source': source,
      'data.validation.split': 'train[24:35]',
      'runner.evaluate_every': 1,
    }
    path = tmp_path / f'of{bool(source)}'
    config = _config('depth', **changes)
    runner.Runner(depth.Depth, config, path, 'train_and_eval').run()
    rows = [json.loads(x) for x in (path / 'metrics.jsonl').read_text().splitlines()]
    names = [set(row) for row in rows]
    assert not any('rms' in x for x in names)
    assert sum('validation_rms' in x for x in names) == (3 if source else 0)
    results = json.loads((path / 'results.json').read_text())
    assert results['rms'] > 0


def test_mistakes_are_refused():
  with pytest.raises(ValueError, match=r'2 learning rate\(s\).* no validation split'):
    _create('depth', **{'training.learning_rates': (0.1, 0.2)})
  with pytest.raises(ValueError, match='learning_rates is empty'):
    _create('depth', **{'training.learning_rates': ()})
  with pytest.raises(ValueError, match='depth is needed'):
    _create('depth', **{'data.test.source': 'digits'})
  with pytest.raises(ValueError, match='batch size 12 does not divide'):
    _create('segmentation', **{'training.batch_size': 12})
  with pytest.raises(ValueError, match='1 images per device do not divide into 2'):
    _create('segmentation', **{'training.num_microbatches': 2})
