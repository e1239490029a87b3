"""Segmentation and depth: devices, what is frozen and resumed runs."""

import json

import jax
import numpy as np
import pytest

from configs.depth import shapes as depth_shapes
from configs.segmentation import shapes as segmentation_shapes
from experiments import depth, segmentation
from sslhsic import parallel
from sslhsic.networks import classifier
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


@pytest.mark.parametrize('frozen', ['encoder', 'batch norm'])
def test_what_is_frozen_stays_as_it_is(frozen, monkeypatch):
  is_norm = frozen == 'batch norm'
  load = pretrained.load  # Any values will do for those of a run.
  monkeypatch.setattr(pretrained, 'load', lambda _, *x, **y: load('random', *x, **y))
  changes = {
    'init_from': 'a run',
    'training.train_encoder': is_norm,
    'training.freeze_batch_norm': is_norm,
  }
  experiment = _create('segmentation', **changes)
  start = _state(experiment)
  _train(experiment)
  after = _state(experiment)
  stays = lambda module: (
    module.startswith(f'{classifier.ENCODER}/')
    and (not is_norm or 'batchnorm' in module)
  )
  for module, leaves in start.params.items():
    for name, value in leaves.items():
      assert np.array_equal(after.params[module][name], value) == stays(module)
  keys = {x for path, _ in _leaves(after.opt_state) for x in path}
  optimised = {x.key for x in keys if isinstance(x, jax.tree_util.DictKey)}
  assert {x for x in start.params if stays(x)}.isdisjoint(optimised)
  statistics = [
    np.array_equal(after.network_state[module]['average'], leaves['average'])
    for module, leaves in start.network_state.items()
    if module.startswith(f'{classifier.ENCODER}/')
  ]
  assert all(statistics) if is_norm else not any(statistics)


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


def test_mistakes_are_refused():
  message = 'has no batch statistics to freeze'
  with pytest.raises(ValueError, match=message):
    _create('depth', **{'training.freeze_batch_norm': True})
  with pytest.raises(ValueError, match='depth is needed'):
    _create('depth', **{'data.test.source': 'digits'})
  with pytest.raises(ValueError, match='batch size 12 does not divide'):
    _create('segmentation', **{'training.batch_size': 12})
