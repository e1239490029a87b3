"""Object detection: devices, resumed runs and scores."""

import json

import jax
import numpy as np
import pytest

from configs.detection import shapes
from experiments import detection
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.runs import runner
from sslhsic.tasks.detection import proposals


def _config(**changes):
  config = shapes.get_config()
  config.init_from = 'random'
  config.network.update(
    encoder_options={'blocks_per_group': (1,), 'channels_per_group': (8,)},
    pyramid_channels=8,
    box_size=8,
  )
  config.detector.update(
    anchor_sizes=((12,), (24,)),
    before_nms_training=24,
    before_nms=24,
    after_nms_training=16,
    after_nms=16,
    rois_per_image=16,
    detections_per_image=6,
    box_pool=4,
    mask_pool=4,
  )
  config.data.update(
    padded=(32, 32),
    shorter=(28, 32),
    longer=(32, 32),
    test_shorter=(32, 32),
    test_longer=(32, 32),
    mask_size=8,
  )
  config.data.train.update(source='shapes:32', split='train[:24]')
  config.data.test.update(source='shapes:40', split='test[:11]')  # Does not divide.
  config.training.update(steps=3, warmup_steps=0, learning_rate=0.1, batch_size=8)
  config.evaluation.batch_size = 8
  config.runner.update(log_every=1, evaluate_every=0, checkpoint_every=1)
  config.update_from_flattened_dict(changes)
  return config


def _devices(monkeypatch, count):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:count])


def test_one_device_equals_several(monkeypatch):
  results = []
  for count in (1, 4):
    _devices(monkeypatch, count)
    experiment = detection.Detection('train', jax.random.key(0), _config())
    scalars = [
      experiment.step(step, jax.random.key_data(jax.random.key(0))) for step in range(3)
    ]
    state = jax.device_get(parallel.first(experiment.state))
    results.append((jax.tree.map(float, scalars), state))
  one, several = results
  for a, b in zip(one[0], several[0], strict=True):
    assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  jax.tree.map(close, one[1], several[1])
  assert one[0][-1]['loss'] < one[0][0]['loss']
  assert {'masks', 'boxes', 'classes', 'proposal_boxes'} < one[0][0].keys()


def test_run_resumes_and_reports(tmp_path, monkeypatch):
  _devices(monkeypatch, 4)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  runner.Runner(detection.Detection, _config(), whole, 'train_and_eval').run()
  interrupted = runner.Runner(detection.Detection, _config(), parts, 'train')
  interrupted._experiment.num_steps = 2
  interrupted.run()
  runner.Runner(detection.Detection, _config(), parts, 'train_and_eval').run()
  results = [
    json.loads((path / 'results.json').read_text(encoding='utf-8'))
    for path in (whole, parts)
  ]
  for metric in ('voc_ap50', 'box_ap', 'mask_ap'):
    assert results[0][metric] == results[1][metric]
    assert 'shapes:40 test[:11]' in results[0]['protocol'][metric]
  assert (whole / 'figures' / 'detection.png').stat().st_size > 1000


def test_scores_are_full_if_everything_is_found():
  source = sources.create('shapes:40', 'test[:11]')
  task = detection.create_task(_config(), source)

  def find_everything():
    """The true objects of each example, in place of those that a network finds."""
    for row in range(len(source)):
      made = task.test_example(np.random.default_rng(0), source[row])
      there = (made['classes'] >= 0) & ~made['ignore']
      found = proposals.Detections(
        boxes=made['boxes'],
        scores=np.where(there, 0.9, 0).astype(np.float32),
        classes=made['classes'],
        is_valid=there,
        masks=(made['masks'] / 255).astype(np.float32),
      )
      example = {'row': row, 'size': made['size'], 'scale': made['scale']}
      yield jax.tree.map(lambda x: np.asarray(x)[None], example | {'detections': found})

  scores = task.score(find_everything(), source).scalars
  assert scores['voc_ap50'] == pytest.approx(1)
  assert scores['box_ap'] == pytest.approx(1)
  assert scores['mask_ap50'] > 0.9  # Of masks with holes in 8×8 cells.


def test_mistakes_are_refused(monkeypatch):
  _devices(monkeypatch, 1)
  with pytest.raises(ValueError, match='needed'):
    detection.Detection(
      'eval', jax.random.key(0), _config(**{'data.test.source': 'digits'})
    )
