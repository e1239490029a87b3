"""Loss and errors of depths against loops in NumPy."""

import jax
import numpy as np
import pytest

from sslhsic.tasks.depth import scores


@pytest.fixture(scope='module')
def example():
  """Predicted and true depths of four images, some of them not known."""
  rng = np.random.default_rng(0)
  truth = rng.uniform(1, 9, (4, 3, 5)).astype(np.float32)
  predicted = (truth * rng.uniform(0.4, 2.2, truth.shape)).astype(np.float32)
  truth[0, 0] = 0
  truth[1] = 0
  predicted[1, 0, 0] = 1e6  # Where nothing is known.
  return predicted, truth


def test_loss_is_that_of_a_loop(example):
  predicted, truth = example
  errors = [abs(p - t) for p, t in zip(predicted.flat, truth.flat, strict=True) if t]
  c = max(errors) / 5
  expected = np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in errors])
  np.testing.assert_allclose(
    scores.reverse_huber(predicted, truth), expected, rtol=1e-5
  )


def test_loss_and_gradient_are_equal_on_any_number_of_devices(example):
  loss, gradient = jax.value_and_grad(scores.reverse_huber)(*example)
  on_devices = jax.pmap(
    lambda x, y: jax.value_and_grad(scores.reverse_huber)(x, y, 'i'), axis_name='i'
  )
  losses, gradients = on_devices(*(x.reshape(4, 1, 3, 5) for x in example))
  np.testing.assert_allclose(losses, np.full(4, loss), rtol=1e-6)
  np.testing.assert_allclose(gradients[:, 0] / 4, gradient, rtol=1e-5, atol=1e-8)


def test_perfect_or_unknown_depths_cost_nothing(example):
  predicted, truth = example
  assert scores.reverse_huber(truth, truth) == 0
  loss, gradient = jax.value_and_grad(scores.reverse_huber)(predicted, 0 * truth)
  assert loss == 0
  np.testing.assert_array_equal(gradient, np.zeros_like(truth))


def test_scores_are_those_of_a_loop(example):
  predicted, truth = example
  known = [(p, t) for p, t in zip(predicted.flat, truth.flat, strict=True) if t]
  ratio = np.array([max(p / t, t / p) for p, t in known])
  expected = {f'delta{k}': np.mean(ratio < 1.25**k) for k in (1, 2, 3)} | {
    'rms': np.sqrt(np.mean([(p - t) ** 2 for p, t in known])),
    'rel': np.mean([abs(p - t) / t for p, t in known]),
  }
  found = scores.errors(scores.error_sums(predicted, truth))
  assert found == pytest.approx(expected, rel=1e-5)
  assert 0 < found['delta1'] < found['delta2'] < 1


def test_negative_predictions_are_far_off():
  truth = np.ones((1, 1, 2), np.float32)
  found = scores.errors(scores.error_sums(-truth, truth))
  assert found['delta3'] == 0
  assert found['rms'] == pytest.approx(2)
