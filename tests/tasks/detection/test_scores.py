"""Average precision against hand-worked cases and a loop over the development kit."""

import numpy as np
import pytest
from pycocotools import mask as rle

from sslhsic.tasks.detection import proposals
from sslhsic.tasks.detection import scores as scores_lib

SIZE = (40, 60)


def area(boxes):
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def filled(box):
  x1, y1, x2, y2 = (round(float(x)) for x in box)
  mask = np.zeros(SIZE, np.uint8)
  mask[y1:y2, x1:x2] = 1
  return scores_lib.encode_mask(mask)


def truth(boxes, classes=None, ignore=None):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  classes = np.zeros(len(boxes), np.int32) if classes is None else np.array(classes)
  ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
  masks = [filled(box) for box in boxes]
  return scores_lib.GroundTruth(SIZE, boxes, classes, ignore, area(boxes), masks)


def found(boxes, scores, classes=None):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  classes = np.zeros(len(boxes), np.int32) if classes is None else np.array(classes)
  masks = [filled(box) for box in boxes]
  return scores_lib.Found(boxes, np.array(scores, np.float32), classes, masks)


LEFT, RIGHT = [0, 0, 10, 10], [30, 0, 40, 10]


@pytest.mark.parametrize(
  ('of_truth', 'of_found', 'expected'),
  [
    # Both found, a wrong one between them: precision 1 up to recall 1/2, then 2/3.
    (
      [truth([LEFT, RIGHT])],
      [found([LEFT, [0, 20, 9, 29], RIGHT], [0.9, 0.8, 0.7])],
      (6 + 5 * 2 / 3) / 11,
    ),
    # The second time an object is found is wrong, and an object is missed.
    (
      [truth([LEFT, RIGHT])],
      [found([LEFT, LEFT], [0.7, 0.9])],
      6 / 11,
    ),
    # Finding a difficult object does not count, missing one neither.
    (
      [truth([LEFT, RIGHT, [0, 20, 9, 29]], ignore=[False, True, True])],
      [found([RIGHT, RIGHT, LEFT], [0.9, 0.8, 0.7])],
      1.0,
    ),
    # Of another class, or in another image.
    (
      [truth([LEFT]), truth([RIGHT], classes=[1])],
      [found([RIGHT], [0.9]), found([RIGHT, LEFT], [0.8, 0.7], [0, 1])],
      0.0,
    ),
    # IoU of exactly a half is enough.
    ([truth([LEFT])], [found([[0, 0, 10, 5]], [0.9])], 1.0),
    ([truth([LEFT])], [found([[0, 0, 10, 4.9]], [0.9])], 0.0),
  ],
)
def test_voc_by_hand(of_truth, of_found, expected):
  scores = scores_lib.voc_average_precisions(of_truth, of_found, num_classes=3)
  np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
  assert np.isnan(scores[2])


def random_set(rng, num_images):
  """Images with objects of three classes, some found roughly, some twice."""
  truths, founds = [], []
  for _ in range(num_images):
    corners = rng.uniform(0, 20, (rng.integers(0, 5), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 20, corners.shape)], 1)
    of_class = rng.integers(0, 3, len(boxes))
    truths.append(truth(boxes, of_class, rng.random(len(boxes)) < 0.2))
    again = np.concatenate([boxes, boxes[: rng.integers(0, 3)]])
    again = np.maximum(again + rng.normal(0, 1.5, again.shape), 0)
    again[:, 2:] = np.maximum(again[:, 2:], again[:, :2] + 1)
    again_of_class = np.concatenate([of_class, of_class[: len(again) - len(boxes)]])
    founds.append(found(again, rng.random(len(again)), again_of_class))
  return truths, founds


def development_kit(truths, founds, number):
  """PASCAL's VOCevaldet, one detection after the other, as it is described."""
  detections = sorted(
    (-score, image, tuple(box))
    for image, x in enumerate(founds)
    for box, score, of_class in zip(x.boxes, x.scores, x.classes, strict=True)
    if of_class == number
  )
  seen, right, wrong, points = set(), 0, 0, []
  num_positives = sum(((x.classes == number) & ~x.ignore).sum() for x in truths)
  for _, image, a in detections:
    best, most = None, -1.0
    for j, b in enumerate(truths[image].boxes):
      if truths[image].classes[j] != number:
        continue
      width = min(a[2], b[2]) - max(a[0], b[0])
      height = min(a[3], b[3]) - max(a[1], b[1])
      if width > 0 and height > 0:
        both = width * height
        either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
        if both / either > most:
          best, most = j, both / either
    if most >= 0.5:
      if truths[image].ignore[best]:
        continue
      right, wrong = (
        right + ((image, best) not in seen),
        wrong + ((image, best) in seen),
      )
      seen.add((image, best))
    else:
      wrong += 1
    points.append((right / num_positives, right / (right + wrong)))
  return np.mean(
    [max((p for r, p in points if r >= i / 10), default=0) for i in range(11)]
  )


def test_voc_equals_the_development_kit():
  truths, founds = random_set(np.random.default_rng(0), 25)
  scores = scores_lib.voc_average_precisions(truths, founds, num_classes=3)
  expected = [development_kit(truths, founds, number) for number in range(3)]
  assert all(0.1 < score < 0.99 for score in expected)
  np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize('kind', ['boxes', 'masks'])
def test_coco_by_hand(kind):
  # One of two objects is found, with an IoU of 0.6: at 3 of 10 thresholds, the
  # precision is 1 at the recalls 0, 0.01, …, 0.5.
  truths = [truth([LEFT, RIGHT])]
  founds = [found([[0, 0, 10, 6]], [0.5])]
  scores = scores_lib.coco_average_precision(truths, founds, 1, kind)
  np.testing.assert_allclose(scores['ap'], 0.3 * 51 / 101)
  np.testing.assert_allclose(scores['ap50'], 51 / 101)
  assert scores['ap75'] == 0
  assert scores['ap_small'] == scores['ap']
  assert 'ap_medium' not in scores


@pytest.mark.parametrize('kind', ['boxes', 'masks'])
def test_coco_ignores_what_is_in_a_crowd(kind):
  crowd = [20, 0, 60, 40]
  truths = [truth([LEFT, crowd], ignore=[False, True]), truth([])]
  inside = [[22, 2, 32, 12], [40, 20, 50, 35]]
  founds = [found([*inside, LEFT], [0.9, 0.8, 0.7]), found([], [])]
  scores = scores_lib.coco_average_precision(truths, founds, 2, kind)
  np.testing.assert_allclose(scores['ap'], 1)
  nothing = [found([], [])] * 2
  assert scores_lib.coco_average_precision(truths, nothing, 2, kind)['ap'] == 0


def test_masks_are_pasted_into_their_boxes():
  half = np.zeros((8, 8), np.float32)
  half[:, 4:] = 1
  pasted = scores_lib.paste_mask(half, np.array([10.0, 5.0, 26.0, 21.0]), SIZE)
  expected = np.zeros(SIZE, np.uint8)
  expected[5:21, 18:26] = 1
  np.testing.assert_array_equal(pasted, expected)
  outside = scores_lib.paste_mask(half, np.array([50.0, -8, 66, 8]), SIZE)
  expected = np.zeros(SIZE, np.uint8)
  expected[:8, 58:] = 1
  np.testing.assert_array_equal(outside, expected)


def test_found_in_pixels_of_the_original():
  detections = proposals.Detections(
    boxes=np.array([[10, 10, 30, 20], [0, 0, 5, 5]], np.float32),
    scores=np.array([0.9, 0], np.float32),
    classes=np.array([2, 0], np.int32),
    is_valid=np.array([True, False]),
    masks=np.ones((2, 4, 4), np.float32),
  )
  result = scores_lib.found(detections, np.array([0.5, 2.0]), SIZE)
  np.testing.assert_array_equal(result.boxes, [[5, 20, 15, 40]])
  assert result.classes.tolist() == [2]
  (mask,) = result.masks
  assert rle.toBbox(mask).tolist() == [5, 20, 10, 20]
  # Interpolated to 0 outside of the box, only its corners are lost.
  assert 190 <= rle.area(mask) < 200


def test_truth_of_an_example():
  example = {
    'boxes': np.array([LEFT], np.float32),
    'classes': np.array([3], np.int32),
    'ignore': np.array([True]),
    'area': np.array([77.0], np.float32),
    'masks': np.ones((1, *SIZE), np.uint8),
  }
  result = scores_lib.ground_truth(example, SIZE)
  assert result.area.tolist() == [77]
  assert result.masks[0]['size'] == list(SIZE)
  del example['masks']
  assert scores_lib.ground_truth(example, SIZE).masks is None
