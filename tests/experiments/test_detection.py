"""Object detection: devices, resumed runs, scores, full sizes."""

import json

import jax
import numpy as np
import pytest

from configs.detection import coco, shapes, voc
from experiments import detection
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.detection import proposals
from sslhsic.evaluation import encoder
from sslhsic.training import runner


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
    scalars = [experiment.step(step, jax.random.key(0)) for step in range(3)]
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


def test_who_finds_everything_scores_fully(monkeypatch):
  _devices(monkeypatch, 4)
  experiment = detection.Detection('eval', jax.random.key(0), _config())

  def find_everything(params, network_state, batch):
    """The true objects, in the place of what a network finds."""
    there = (batch['classes'] >= 0) & ~batch['ignore']
    found = proposals.Detections(
      boxes=batch['boxes'],
      scores=np.where(there, 0.9, 0).astype(np.float32),
      classes=batch['classes'],
      is_valid=there,
      masks=(batch['masks'] / 255).astype(np.float32),
    )
    where = {name: batch[name] for name in ('row', 'size', 'scale')}
    return where | {'detections': found}

  experiment._pmapped_predict = find_everything
  scores = experiment.evaluate(0, jax.random.key(0))
  assert scores['voc_ap50'] == pytest.approx(1)
  assert scores['box_ap'] == pytest.approx(1)
  assert scores['mask_ap50'] > 0.9  # Of masks with holes in 8×8 cells.


def test_mistakes_are_refused(monkeypatch):
  _devices(monkeypatch, 1)
  with pytest.raises(ValueError, match='needed'):
    detection.Detection(
      'eval', jax.random.key(0), _config(**{'data.test.source': 'digits'})
    )


class _Blank:
  """A source of one blank example of any size, with two objects."""

  num_classes = 0

  def __init__(self, height, width):
    self.annotations = sources.create('shapes:32', 'test').annotations
    self._example = {
      'image': np.zeros((height, width, 3), np.uint8),
      'label': np.int32(-1),
      'boxes': np.array([[3, 4, 50, 60], [9, 9, 99, 99]], np.float32),
      'classes': np.array([0, 1], np.int32),
      'ignore': np.array([False, True]),
      'area': np.array([99, 99], np.float32),
      'masks': np.zeros((2, height, width), np.uint8),
    }

  def __len__(self):
    return 1

  def __getitem__(self, index):
    return self._example

  def name(self, index):
    return 'blank'


@pytest.mark.parametrize(('config', 'size'), [(coco, (480, 640)), (voc, (500, 333))])
def test_step_of_the_full_size_traces(monkeypatch, config, size):
  """Nothing is computed: parameters are zeros, and the step is only traced."""
  config = config.get_config()
  config.init_from = 'random'
  _devices(monkeypatch, 1)
  blank = _Blank(*size)
  monkeypatch.setattr(sources, 'create', lambda name, split: blank)
  monkeypatch.setattr(encoder, 'initial_values', _zeros)
  experiment = detection.Detection('eval', jax.random.key(0), config)
  example = experiment._training_example()(np.random.default_rng(0), blank[0])
  assert example['image'].shape == (*config.data.padded, 3)
  example['index'] = np.uint32(0)
  batch = {
    name: jax.ShapeDtypeStruct((1, config.training.batch_size, *x.shape), x.dtype)
    for name, x in example.items()
  }
  state, scalars = jax.eval_shape(
    experiment._pmapped_step, experiment.state, batch, np.int32(0)
  )
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(state) == shapes(experiment.state)
  assert scalars['loss'].shape == ()


def _zeros(network, image_shape, seed):
  init = lambda rng, images: network.init(rng, images, True)
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  shapes = jax.eval_shape(init, jax.random.key(seed), images)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
