"""What anchors and regions become, against loops; what is sampled of them."""

import jax
import jax.numpy as jnp
import numpy as np

from sslhsic.tasks.detection import boxes, regions, targets

SETTINGS = {'foreground': 0.6, 'background': 0.4, 'ignored_overlap': 0.5}


def random_boxes(rng, num):
  corners = rng.uniform(0, 60, (num, 2))
  sizes = rng.uniform(10, 40, (num, 2))
  return np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)


def random_truth(rng):
  """Five objects, one of them to be ignored, then nothing."""
  real = random_boxes(rng, 6)
  return targets.Truth(
    boxes=np.concatenate([real, np.zeros((2, 4), np.float32)]),
    classes=np.array([0, 1, 2, 0, 1, 2, -1, -1], np.int32),
    ignore=np.array([False, False, True, False, False, False, False, False]),
  )


def matched_one_by_one(candidates, is_valid, truth, *, with_best):
  """Labels and objects, as they are defined."""
  objects = [k for k in range(8) if truth.classes[k] >= 0 and not truth.ignore[k]]
  ignored = [k for k in range(8) if truth.classes[k] >= 0 and truth.ignore[k]]
  overlaps = np.array(boxes.iou(candidates, truth.boxes))
  inside = np.array(boxes.covered(candidates, truth.boxes))
  labels, nearest = [], []
  for i in range(len(candidates)):
    best = max(objects, key=lambda k: overlaps[i, k])
    nearest.append(best)
    valid = [j for j in range(len(candidates)) if is_valid[j]]
    is_best = any(
      overlaps[i, k] == max(overlaps[j, k] for j in valid) > 0 for k in objects
    )
    if not is_valid[i]:
      labels.append(-1)
    elif overlaps[i, best] >= 0.6 or (with_best and is_best):
      labels.append(1)
    elif overlaps[i, best] < 0.4 and all(inside[i, k] < 0.5 for k in ignored):
      labels.append(0)
    else:
      labels.append(-1)
  return np.array(labels), np.array(nearest)


def test_matching_equals_a_loop():
  rng = np.random.default_rng(0)
  match = jax.jit(
    lambda *x: [targets.match(*x, **SETTINGS, with_best=b) for b in (False, True)]
  )
  num_rescued = 0
  for _ in range(5):
    truth = random_truth(rng)
    candidates = np.concatenate([random_boxes(rng, 60), truth.boxes[:4] + 2])
    is_valid = rng.random(64) < 0.9
    for with_best, (labels, objects) in enumerate(match(candidates, is_valid, truth)):
      expected, nearest = matched_one_by_one(
        candidates, is_valid, truth, with_best=bool(with_best)
      )
      np.testing.assert_array_equal(labels, expected)
      is_positive = expected == 1
      np.testing.assert_array_equal(
        np.asarray(objects)[is_positive], nearest[is_positive]
      )
      assert set(expected) == {-1, 0, 1}
      num_rescued += is_positive.sum() * (1 if with_best else -1)
  assert num_rescued > 0


def test_without_objects_all_is_background():
  truth = random_truth(np.random.default_rng(1))._replace(
    classes=np.full(8, -1, np.int32)
  )
  candidates = random_boxes(np.random.default_rng(2), 20)
  match = jax.jit(lambda *x: targets.match(*x, **SETTINGS, with_best=True))
  matched = match(candidates, np.ones(20, bool), truth)
  assert not np.any(matched.labels)
  codes = targets.codes(candidates, truth, matched, (1.0, 1.0, 1.0, 1.0))
  assert not np.any(codes)


def test_sample_is_balanced_and_random():
  labels = np.array([1] * 20 + [0] * 30 + [-1] * 50, np.int32)
  draw = jax.jit(jax.vmap(lambda key: targets.sample(key, labels, 16, 0.25)))
  places, drawn = draw(jax.random.split(jax.random.key(0), 200))
  np.testing.assert_array_equal(drawn, [[1] * 4 + [0] * 12] * 200)
  np.testing.assert_array_equal(labels[places], drawn)
  assert all(len(set(row)) == 16 for row in places.tolist())
  counts = np.bincount(places.ravel(), minlength=100)
  # 40 of 200·4 for a positive one on average, 80 of 200·12 for a negative one.
  np.testing.assert_allclose(counts[:20], 40, atol=30)
  np.testing.assert_allclose(counts[20:50], 80, atol=40)


def test_sample_of_too_few():
  draw = jax.jit(targets.sample, static_argnums=(2, 3))
  labels = np.array([0, -1, 1, 0, -1, -1, 1, 1, 1], np.int32)
  places, drawn = draw(jax.random.key(0), labels, 8, 0.25)
  assert drawn.tolist() == [1, 1, 0, 0, -1, -1, -1, -1]
  assert set(places[2:4].tolist()) == {0, 3}
  labels = np.array([0] * 9, np.int32)
  places, drawn = draw(jax.random.key(0), labels, 8, 0.25)
  assert drawn.tolist() == [0] * 8
  assert len(set(places.tolist())) == 8


def test_masks_in_regions():
  masks = np.zeros((2, 8, 8), np.uint8)
  masks[1, :, 4:] = 255  # The right half of a box from (10, 20) to (26, 36).
  truth = targets.Truth(
    boxes=np.array([[0, 0, 1, 1], [10, 20, 26, 36]], np.float32),
    classes=np.array([0, 0], np.int32),
    ignore=np.zeros(2, bool),
    masks=masks,
  )
  rois = np.array([[10, 20, 26, 36], [18, 20, 50, 52], [2, 12, 18, 28]], np.float32)
  crop = jax.jit(regions.crop_masks, static_argnums=3)
  cropped = crop(truth, rois, jnp.array([1, 1, 1]), 4)
  right = np.tile([0.0, 0, 1, 1], (4, 1))
  np.testing.assert_allclose(np.round(cropped[0]), right)
  part = np.zeros((4, 4))
  part[:2, :1] = 1
  np.testing.assert_allclose(np.round(cropped[1]), part)
  np.testing.assert_allclose(cropped[2], 0)
