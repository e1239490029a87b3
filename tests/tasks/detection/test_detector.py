"""The detectors: what reaches their losses and what does not, and their full sizes."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.detection import coco_detectron2, coco_torchvision, voc_byol, voc_moco
from sslhsic import networks
from sslhsic.networks import classifier
from sslhsic.tasks.detection import detector, settings, targets, trunks

SIDE, NUM_OBJECTS, NUM_CLASSES = 32, 4, 3
ENCODER = {
  'encoder': 'resnet18',
  'encoder_options': {'blocks_per_group': (1, 1), 'channels_per_group': (4, 8)},
}
SMALL = {
  'anchors_per_image': 32,
  'before_nms_training': 24,
  'before_nms': 24,
  'after_nms_training': 16,
  'after_nms': 16,
  'rois_per_image': 16,
  'detections_per_image': 6,
  'box_pool': 4,
  'mask_pool': 4,
  'canonical_size': 16.0,
}
ANCHORS = {'fpn': ((8,), (16,), (32,)), 'c4': ((8, 16, 32),)}


def small_detector(architecture, **changes):
  numbers = {**SMALL, 'anchor_sizes': ANCHORS[architecture]}
  return detector.create(
    **{
      'architecture': architecture,
      **ENCODER,
      'train_encoder': True,
      'freeze_batch_norm': False,
      'num_classes': NUM_CLASSES,
      'with_masks': architecture == 'fpn',
      'settings': settings.DetectorSettings(**numbers),
      'pyramid_channels': 8,
      'box_size': 8,
    }
    | changes
  )


def random_batch(rng, num=2):
  """Images, sizes and truth: an object, one more, one to be ignored, and none."""
  images = rng.normal(size=(num, SIDE, SIDE, 3)).astype(np.float32)
  corners = rng.uniform(0, 14, (num, NUM_OBJECTS, 2))
  sizes = rng.uniform(6, 14, (num, NUM_OBJECTS, 2))
  truth = targets.Truth(
    boxes=np.concatenate([corners, corners + sizes], axis=-1).astype(np.float32),
    classes=np.tile(np.array([0, 2, 1, -1], np.int32), (num, 1)),
    ignore=np.tile([False, False, True, False], (num, 1)),
    masks=rng.integers(0, 256, (num, NUM_OBJECTS, 6, 6), np.uint8),
  )
  return images, np.full((num, 2), [30, 28], np.float32), truth


class Made:
  """A small detector, compiled, with initial values and a batch."""

  def __init__(self, architecture):
    made = small_detector(architecture)
    self.images, self.sizes, self.truth = random_batch(np.random.default_rng(0))
    self.params, self.state = jax.jit(made.init, static_argnums=2)(
      jax.random.key(0), self.images, True
    )
    self.keys = jax.random.split(jax.random.key(1), len(self.images))

    @jax.jit
    def losses_and_gradients(images, truth, keys):
      def loss(params):
        losses, _ = made.losses(
          params, self.state, None, images, self.sizes, truth, keys
        )
        means = {name: losses_of.mean() for name, losses_of in losses.items()}
        return sum(means.values()), means

      gradients, losses = jax.grad(loss, has_aux=True)(self.params)
      return losses, gradients

    self._apply = losses_and_gradients
    # Batch statistics that an encoder may have, other than the initial zeros.
    state = hk.data_structures.map(
      lambda module, _, x: jnp.full_like(x, module.endswith('var_ema')), self.state
    )
    self.detect = jax.jit(
      lambda images: made.detect(self.params, state, None, images, self.sizes)[0]
    )

  def losses(self, images=None, **changes):
    truth = self.truth._replace(**changes)
    images = self.images if images is None else images
    return self._apply(images, truth, self.keys)[0]

  def gradients(self):
    return self._apply(self.images, self.truth, self.keys)[1]


@pytest.fixture(scope='module')
def fpn():
  return Made('fpn')


@pytest.fixture(scope='module')
def c4():
  return Made('c4')


@pytest.mark.parametrize('name', ['fpn', 'c4'])
def test_every_parameter_learns(name, request):
  made = request.getfixturevalue(name)
  for module, leaves in made.gradients().items():
    for value in leaves.values():
      assert np.isfinite(value).all()
    # Convolutions inside of a block do not act yet: its last scale is zero.
    assert any(np.any(value) for value in leaves.values()) or '/block_' in module
  losses = made.losses()
  # At the start, background and objects are equally likely, and so are the classes.
  np.testing.assert_allclose(losses['proposal_objectness'], np.log(2), atol=0.1)
  np.testing.assert_allclose(losses['classes'], np.log(NUM_CLASSES + 1), atol=0.1)


def test_what_is_padding_or_ignored_changes_no_loss(fpn):
  expected = fpn.losses()
  boxes, classes, masks = (np.copy(x) for x in fpn.truth[:2] + fpn.truth[3:])
  boxes[:, 3], masks[:, 2:], classes[:, 2] = [3, 3, 29, 29], 77, 0
  ignore = np.copy(fpn.truth.ignore)
  ignore[:, 3] = True
  changed = fpn.losses(boxes=boxes, classes=classes, masks=masks, ignore=ignore)
  jax.tree.map(np.testing.assert_array_equal, changed, expected)


def test_an_object_changes_the_losses(fpn):
  expected = fpn.losses()
  for name, index in [('boxes', 1), ('classes', 1), ('masks', 0)]:
    values = np.copy(getattr(fpn.truth, name))
    values[:, index] = values[:, index] // 2
    assert fpn.losses(**{name: values}) != expected


def test_no_object_is_all_background(fpn):
  losses = fpn.losses(classes=np.full((2, NUM_OBJECTS), -1, np.int32))
  for name in ('proposal_boxes', 'boxes', 'masks'):
    assert losses[name] == 0
  assert all(np.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize('name', ['fpn', 'c4'])
def test_pixels_of_the_padding_are_not_seen(name, request):
  made = request.getfixturevalue(name)
  images = np.copy(made.images)
  images[:, 30:], images[:, :, 28:] = 77, -99
  jax.tree.map(np.testing.assert_array_equal, made.losses(images=images), made.losses())
  jax.tree.map(
    np.testing.assert_array_equal, made.detect(images), made.detect(made.images)
  )


@pytest.mark.parametrize('name', ['fpn', 'c4'])
def test_the_size_of_the_padding_is_not_seen(name, request):
  made = request.getfixturevalue(name)
  canvas = np.full((2, 48, 40, 3), 7, np.float32)
  canvas[:, :30, :28] = made.images[:, :30, :28]
  expected, found = jax.device_get((made.detect(made.images), made.detect(canvas)))
  assert np.any(expected.is_valid)
  for x, y in zip(found, expected, strict=True):
    if y is not None:
      np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def test_regions_that_are_not_sampled_do_not_count_in_batch_norm():
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
  rois = np.array([[[0, 0, 30, 30], [9, 9, 20, 30], [5, 0, 9, 30]]], np.float32)
  is_counted = np.array([[True, True, False]])

  def features(rois):
    network = networks.create(
      ENCODER['encoder'], **ENCODER['encoder_options'], name='encoder'
    )
    c4 = trunks.C4(
      network,
      settings.DetectorSettings(box_pool=4),
      frozen=trunks.Frozen(trunk=True, last_group=False),
      extra_batch_norm=True,
      axis_name=None,
    )
    levels = trunks.Levels((maps,), (np.full((1, 2), 8, np.int32),))
    return c4.box_features(levels, rois, is_counted, is_training=True)

  forward = hk.without_apply_rng(hk.transform_with_state(features))
  params, state = forward.init(jax.random.key(0), rois)
  apply = jax.jit(forward.apply)
  found, after = apply(params, state, rois)
  rois[0, 2] = 0, 0, 12, 4
  again, after_again = apply(params, state, rois)
  np.testing.assert_array_equal(again[:2], found[:2])
  jax.tree.map(np.testing.assert_array_equal, after_again, after)
  # By the extra batch norm, features of the regions that count have mean 0.
  np.testing.assert_allclose(found[:2].mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize('name', ['fpn', 'c4'])
def test_detections_are_inside_the_image_and_sorted(name, request):
  made = request.getfixturevalue(name)
  found = jax.device_get(made.detect(made.images))
  assert found.boxes.shape == (2, 6, 4)
  assert np.all((found.boxes >= 0) & (found.boxes <= np.array([28, 30, 28, 30])))
  assert np.all(np.diff(found.scores, axis=1) <= 0)
  assert np.all(found.is_valid == (found.scores > 0))
  assert np.any(found.is_valid)
  if name == 'fpn':
    assert found.masks.shape == (2, 6, 8, 8)
  else:
    assert found.masks is None


def test_encoder_has_the_names_of_a_plain_one(fpn, c4):
  plain = classifier.encoder(**ENCODER)
  shapes = jax.eval_shape(
    lambda images: plain.init(jax.random.key(0), images, True), fpn.images
  )
  for made in (fpn, c4):
    for expected, tree in zip(shapes, (made.params, made.state), strict=True):
      named = {name: x for name, x in tree.items() if name.startswith('encoder/')}
      assert jax.tree.map(np.shape, named) == jax.tree.map(np.shape, expected)


def test_mistakes_are_refused():
  with pytest.raises(ValueError, match="unknown architecture 'ssd'; use one of c4"):
    detector.create(
      architecture='ssd',
      **ENCODER,
      train_encoder=True,
      freeze_batch_norm=False,
      num_classes=2,
      with_masks=False,
      settings=settings.PRESETS['fpn_torchvision'],
    )
  with pytest.raises(ValueError, match='has no mask head'):
    small_detector('c4', with_masks=True)
  with pytest.raises(ValueError, match=r"extra_batch_norm is .* c4, not of 'fpn'"):
    small_detector('fpn', extra_batch_norm=True)
  wrong = dataclasses.replace(
    settings.PRESETS['fpn_torchvision'], anchor_sizes=((8,), (16, 32))
  )
  with pytest.raises(ValueError, match=r'levels with \[1, 2\] anchor sizes'):
    _ = wrong.anchors_per_position
  made = small_detector('fpn', settings=settings.PRESETS['fpn_torchvision'])
  images, sizes, truth = random_batch(np.random.default_rng(0))
  params, state = jax.eval_shape(
    lambda images: made.init(jax.random.key(0), images, True), images
  )
  keys = jax.random.split(jax.random.key(0), 2)
  with pytest.raises(ValueError, match='anchor sizes for 5 levels, but there are 3'):
    jax.eval_shape(made.losses, params, state, None, images, sizes, truth, keys)
  # A pyramid adds every stage, twice as large, to the one before.
  dilated = ENCODER['encoder_options'] | {'output_stride': 4}
  with pytest.raises(ValueError, match='of half the resolution of the one before, but'):
    jax.eval_shape(
      lambda x: small_detector('fpn', encoder_options=dilated).init(
        jax.random.key(0), x, True
      ),
      images,
    )


@pytest.mark.parametrize(
  ('config', 'preset'),
  [
    (coco_torchvision, 'fpn_torchvision'),
    (coco_detectron2, 'fpn_detectron2'),
    (voc_moco, 'c4_detectron2'),
    (voc_byol, 'c4_detectron2'),
  ],
)
def test_configurations_are_the_presets(config, preset):
  config = config.get_config()
  assert settings.DetectorSettings(**config.detector) == settings.PRESETS[preset]
  assert config.network.encoder in networks.ENCODERS


def test_detections_of_the_full_size_trace():
  made = detector.create(
    architecture='fpn',
    encoder='resnet50',
    encoder_options={},
    train_encoder=True,
    freeze_batch_norm=True,
    num_classes=80,
    with_masks=True,
    settings=settings.PRESETS['fpn_torchvision'],
  )
  images = jax.ShapeDtypeStruct((1, 800, 1333, 3), jnp.float32)
  params, state = jax.eval_shape(
    lambda images: made.init(jax.random.key(0), images, True), images
  )
  found, _ = jax.eval_shape(
    made.detect, params, state, None, images, np.ones((1, 2), np.float32)
  )
  assert found.boxes.shape == (1, 100, 4)
  assert found.masks.shape == (1, 100, 28, 28)
