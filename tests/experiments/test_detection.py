"""Object detection: devices, resumed runs and scores."""

import dataclasses
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
    shorter=(28, 32, 1),
    longer=(32, 32, 1),
    test_shorter=32,
    test_longer=32,
    mask_size=8,
  )
  config.data.train.update(source='shapes:32', split='train[:24]')
  config.data.test.update(source='shapes:40', split='test[:11]')  # Does not divide.
  config.training.update(steps=3, warmup_steps=0, learning_rates=(0.1,), batch_size=8)
  config.evaluation.batch_size = 8
  config.runner.update(log_every=1, evaluate_every=0, checkpoint_every=1)
  config.update_from_flattened_dict(changes)
  return config


@dataclasses.dataclass(frozen=True)
class _BothOrientations:
  """Shapes, cut to 24 rows or to 24 columns; every third one is upright."""

  source: sources.Source
  num_classes = 0

  @property
  def annotations(self):
    return self.source.annotations

  def __len__(self):
    return len(self.source)

  def __getitem__(self, row):
    example = dict(self.source[row])
    axis = 1 if row % 3 == 0 else 0
    cut = lambda x, axis: np.take(x, range(24), axis)
    boxes = np.copy(example['boxes'])
    boxes[:, axis == 0 :: 2] = np.minimum(boxes[:, axis == 0 :: 2], 24)
    is_left = np.all(boxes[:, 2:] - boxes[:, :2] >= 2, axis=1)
    for name in ('image', 'segmentation', 'depth'):
      example[name] = cut(example[name], axis)
    example['masks'] = cut(example['masks'], axis + 1)[is_left]
    example['boxes'] = boxes[is_left]
    for name in ('classes', 'ignore', 'area'):
      example[name] = example[name][is_left]
    return example

  def name(self, row):
    return self.source.name(row)


@pytest.fixture
def _both_orientations(monkeypatch):
  create = sources.create
  monkeypatch.setattr(sources, 'create', lambda *x: _BothOrientations(create(*x)))


def _devices(monkeypatch, count):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:count])


def _steps(experiment, count):
  """Scalars of the first steps, and the state after them."""
  rng = jax.random.key_data(jax.random.key(0))
  scalars = [experiment.step(step, rng) for step in range(count)]
  state = jax.device_get(parallel.first(experiment.state))
  return jax.tree.map(float, scalars), state


CANVAS = {
  'data.padded': (28, 32),
  'data.shorter': (20, 28, 4),
  'data.test_shorter': 28,
  'data.train.split': 'train[:24]',
}


def test_one_device_equals_several(monkeypatch):
  results = []
  for count in (1, 4):
    _devices(monkeypatch, count)
    experiment = detection.Detection('train', jax.random.key(0), _config())
    results.append(_steps(experiment, 3))
  one, several = results
  for a, b in zip(one[0], several[0], strict=True):
    assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  jax.tree.map(close, one[1], several[1])
  assert {'masks', 'boxes', 'classes', 'proposal_boxes'} < one[0][0].keys()


@pytest.mark.usefixtures('_both_orientations')
def test_batches_have_the_canvas_of_their_orientation(monkeypatch):
  _devices(monkeypatch, 1)
  experiment = detection.Detection('eval', jax.random.key(0), _config(**CANVAS))
  stream = experiment._open_input('train')
  shapes = [next(stream)['image'].shape[2:4] for _ in range(6)]
  assert shapes == [(28, 32), (28, 32), (32, 28)] * 2
  batches = list(experiment._one_pass('test'))
  rows = np.concatenate([x['row'][x['mask']] for x in batches])
  assert sorted(rows) == list(range(11))
  for batch in batches:
    is_upright = batch['row'] % 3 == 0
    assert len(set(is_upright)) == 1
    assert batch['image'].shape[1:3] == ((32, 28) if is_upright[0] else (28, 32))


def test_a_frozen_encoder_trains_the_last_group_as_the_box_head_of_c4(monkeypatch):
  _devices(monkeypatch, 1)
  config = _config(**{'training.train_encoder': False})
  config.network.update(architecture='c4', with_masks=False)
  config.network.encoder_options = {
    'blocks_per_group': (1, 1),
    'channels_per_group': (4, 8),
  }
  config.detector.anchor_sizes = ((12, 24),)
  experiment = detection.Detection('train', jax.random.key(0), config)
  before = jax.device_get(parallel.first(experiment.state.network))
  experiment.step(0, jax.random.key_data(jax.random.key(0)))
  after = jax.device_get(parallel.first(experiment.state.network))
  for module, leaves in before.params.items():
    stays = module.startswith('encoder/') and '/group_1/' not in module
    changed = [not np.array_equal(after.params[module][x], leaves[x]) for x in leaves]
    assert any(changed) != stays
  for module, leaves in before.network_state.items():
    is_kept = np.array_equal(after.network_state[module]['average'], leaves['average'])
    assert is_kept == ('/group_1/' not in module)
  assert 'the last group of the encoder' in experiment.summary


@pytest.mark.usefixtures('_both_orientations')
def test_run_resumes_and_reports(tmp_path, monkeypatch):
  _devices(monkeypatch, 4)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  config = lambda: _config(**CANVAS)
  runner.Runner(detection.Detection, config(), whole, 'train_and_eval').run()
  interrupted = runner.Runner(detection.Detection, config(), parts, 'train')
  interrupted._experiment.num_steps = 2
  interrupted.run()
  runner.Runner(detection.Detection, config(), parts, 'train_and_eval').run()
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


def test_microbatches_take_the_steps_of_the_whole_batch(monkeypatch):
  """Numbers of samples differ by image; nothing else knows of the other images."""
  results = []
  for devices, count in ((1, 1), (2, 2)):
    _devices(monkeypatch, devices)
    changes = {
      'network.architecture': 'c4',
      'network.encoder_options.blocks_per_group': (1, 1),
      'network.encoder_options.channels_per_group': (4, 8),
      'network.with_masks': False,
      'detector.anchor_sizes': ((12, 24),),
      'detector.rois_per_image': 24,  # More than an image has.
      'training.freeze_batch_norm': True,
      'training.num_microbatches': count,
    }
    experiment = detection.Detection('train', jax.random.key(0), _config(**changes))
    results.append(_steps(experiment, 1))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
  jax.tree.map(close, *results)


@pytest.mark.usefixtures('_both_orientations')
def test_pixels_of_the_padding_change_no_loss_and_no_score():
  source = sources.create('shapes:40', 'test[:6]')
  task = detection.create_task(_config(**CANVAS), source)
  examples = [
    task.test_example(np.random.default_rng(0), source[row]) for row in (1, 2, 4, 5)
  ]
  batch = jax.tree.map(lambda *x: np.stack(x), *examples)
  images = np.random.default_rng(0).normal(size=batch['image'].shape)
  images = images.astype(np.float32)
  params, state = task.network.init(jax.random.key(0), images[:1], True)
  keys = jax.random.split(jax.random.key(1), len(images))
  batch['row'] = np.arange(4)

  def results(images):
    outputs, after = task.outputs(params, state, images, batch, keys)
    loss, losses = task.loss(outputs, batch)
    return loss, after, losses, task.predict(params, after, images, batch)

  mapped = jax.vmap(results, axis_name=parallel.AXIS_NAME)
  compiled = jax.jit(lambda images: mapped(images[None]))
  expected = compiled(images)
  for image, (height, width) in zip(images, batch['size'].astype(int), strict=True):
    image[height:] = 77
    image[:, width:] = -99
  assert np.any(images == 77)
  jax.tree.map(np.testing.assert_array_equal, compiled(images), expected)


def test_mistakes_are_refused(monkeypatch):
  _devices(monkeypatch, 1)
  message = r'with_masks is True, but config\.data\.mask_size is 0'
  with pytest.raises(ValueError, match=message):
    detection.Detection('train', jax.random.key(0), _config(**{'data.mask_size': 0}))
  with pytest.raises(ValueError, match='needed'):
    detection.Detection(
      'eval', jax.random.key(0), _config(**{'data.test.source': 'digits'})
    )
