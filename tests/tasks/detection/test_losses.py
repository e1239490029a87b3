"""Losses of a detector, by hand; what is padding or not sampled never counts."""

import numpy as np

from sslhsic.tasks.detection import losses

LABELS = np.array([[1, 0, -1], [1, -1, -1]], np.int32)


def test_smooth_l1():
  error = np.array([-2, -0.5, 0, 0.1, 3], np.float32)
  np.testing.assert_allclose(losses.smooth_l1(error, 0), np.abs(error))
  expected = [2 - 0.25, 0.25, 0, 0.01, 3 - 0.25]  # β = 1/2.
  np.testing.assert_allclose(losses.smooth_l1(error, 0.5), expected, rtol=1e-6)


def test_objectness():
  logits = np.array([[2, -1, 50], [0, -50, 9]], np.float32)
  expected = [np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log(2)]
  loss = losses.objectness(logits, LABELS).mean()
  np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-6)


def test_box_codes_are_divided_by_all_samples():
  predicted = np.zeros((2, 3, 4), np.float32)
  codes = np.full((2, 3, 4), 99, np.float32)
  codes[0, 0], codes[1, 0] = [1, -2, 0, 0], [0, 0, 0, 3]
  loss = losses.box_codes(predicted, codes, LABELS, 0).mean()
  np.testing.assert_allclose(loss, (3 + 3) / 3, rtol=1e-6)


def test_classification():
  logits = np.log(np.array([[[0.2, 0.3, 0.5]] * 3] * 2, np.float32))
  classes = np.array([[0, 2, -1], [1, -1, -1]], np.int32)
  loss = losses.classification(logits, classes).mean()
  expected = -np.mean(np.log([0.2, 0.5, 0.3]))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_masks():
  logits = np.full((2, 3, 2, 2), 70, np.float32)
  logits[0, 0], logits[1, 0] = [[0, 0], [0, 0]], [[1, 1], [-1, -1]]
  masks = np.zeros((2, 3, 2, 2), np.float32)
  masks[1, 0] = [[1, 0], [1, 0]]
  second = np.mean([np.log1p(np.exp(-1)), np.log1p(np.exp(1))])
  loss = losses.masks(logits, masks, LABELS).mean()
  np.testing.assert_allclose(loss, (np.log(2) + second) / 2, rtol=1e-6)


def test_no_sample_no_loss():
  nothing = np.full((2, 3), -1, np.int32)
  boxes = np.ones((2, 3, 4), np.float32)
  assert losses.objectness(boxes[..., 0], nothing).mean() == 0
  assert losses.box_codes(boxes, 0 * boxes, nothing, 0.1).mean() == 0
  assert losses.classification(boxes, nothing).mean() == 0
  assert losses.masks(boxes[..., None], boxes[..., None], nothing).mean() == 0
