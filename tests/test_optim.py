"""Optimisers, schedules and averages against loops in NumPy and values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslhsic import optim

SHAPES = {
  'linear': {'w': (3, 2), 'b': (2,)},
  'batchnorm': {'scale': (1, 2), 'offset': (1, 2)},
  'zero': {'w': (2, 2)},
}


def random_tree(seed):
  random = np.random.default_rng(seed)
  return {
    module: {
      name: random.normal(size=shape).astype(np.float32)
      for name, shape in layer.items()
    }
    for module, layer in SHAPES.items()
  }


def initial_params():
  params = random_tree(0)
  params['zero']['w'][:] = 0.0
  return params


def trajectory(optimiser, params, gradients):
  """Parameters after every step."""
  params = jax.tree.map(jnp.asarray, params)
  state = optimiser.init(params)
  history = []
  for gradient in gradients:
    updates, state = jax.jit(optimiser.update)(gradient, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history


def numpy_trajectory(update, params, gradients):
  """Like `trajectory`, by update(step, name, w, g, m) -> (w, m) in float64."""
  params = jax.tree.map(lambda x: x.astype(np.float64), params)
  memory = jax.tree.map(np.zeros_like, params)
  history = []
  for step, gradient in enumerate(gradients):
    for module, layer in params.items():
      for name, w in layer.items():
        g = gradient[module][name].astype(np.float64)
        layer[name], memory[module][name] = update(
          step, name, w, g, memory[module][name]
        )
    history.append(jax.tree.map(np.copy, params))
  return history


def assert_trees_close(actual, expected):
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
  jax.tree.map(close, actual, expected)


def test_scaled_learning_rate():
  assert optim.scaled_learning_rate(0.4, 4096) == pytest.approx(6.4)
  assert optim.scaled_learning_rate(0.4, 64) == pytest.approx(0.1)


def test_warmup_cosine():
  schedule = optim.warmup_cosine(2.0, warmup_steps=10, total_steps=50)
  steps = [0, 1, 5, 10, 20, 30, 50, 60]
  expected = [0, 0.2, 1, 2, 1 + np.sqrt(0.5), 1, 0, 0]
  values = [jax.jit(schedule)(jnp.int32(step)) for step in steps]
  np.testing.assert_allclose(values, expected, atol=1e-6)


def test_no_warmup_starts_at_the_peak():
  schedule = optim.warmup_cosine(2.0, warmup_steps=0, total_steps=50)
  np.testing.assert_allclose([schedule(0), schedule(25)], [2, 1], atol=1e-6)


@pytest.mark.parametrize('warmup_steps', [-1, 50, 60])
def test_warmup_fits_into_the_schedule(warmup_steps):
  with pytest.raises(ValueError, match=f'warm-up of {warmup_steps} steps'):
    optim.warmup_cosine(1.0, warmup_steps, 50)


def test_warmup_drops():
  schedule = optim.warmup_drops(2.0, 10, 100, (0.7, 0.9))
  steps = [0, 5, 10, 69, 70, 89, 90, 99]
  expected = [0, 1, 2, 2, 0.2, 0.2, 0.02, 0.02]
  values = [jax.jit(schedule)(jnp.int32(step)) for step in steps]
  np.testing.assert_allclose(values, expected, atol=1e-6)
  no_warmup = optim.warmup_drops(2.0, 0, 100, (0.5,))
  np.testing.assert_allclose([no_warmup(0), no_warmup(50)], [2, 0.2], rtol=1e-6)
  cosine = optim.warmup_drops(2.0, 10, 50, ())
  np.testing.assert_allclose(cosine(30), optim.warmup_cosine(2.0, 10, 50)(30))


@pytest.mark.parametrize('drops', [(0.05,), (0.5, 1.0)])
def test_drops_are_between_warmup_and_end(drops):
  with pytest.raises(ValueError, match=r'of 100 steps, a warm-up of 10'):
    optim.warmup_drops(1.0, 10, 100, drops)


@pytest.mark.parametrize('constant', [True, False])
def test_lars_equals_numpy(constant):
  gradients = [random_tree(seed) for seed in range(1, 6)]
  gradients[2]['linear']['w'][:] = 0.0
  rates = [0.5] * 5 if constant else [0.5, 0.4, 0.3, 0.2, 0.1]
  decay = 0.1

  def update(step, name, w, g, m):
    if name == 'w':
      g = g + decay * w
      norms = np.linalg.norm(w), np.linalg.norm(g)
      g = g * (0.02 * norms[0] / norms[1] if all(norms) else 1.0)
    m = 0.9 * m + g
    return w - rates[step] * m, m

  schedule = 0.5 if constant else lambda step: jnp.asarray(rates, jnp.float32)[step]
  optimiser = optim.lars(schedule, weight_decay=decay, trust_coefficient=0.02)
  actual = trajectory(optimiser, initial_params(), gradients)
  assert_trees_close(actual, numpy_trajectory(update, initial_params(), gradients))


def test_lars_of_zero_gradients_keeps_its_ratio_at_one():
  # Without decay the norm of the gradient is 0, and w, m must stay finite.
  params = random_tree(0)
  gradients = [jax.tree.map(np.zeros_like, params)] * 2
  optimiser = optim.lars(0.5, weight_decay=0.0)
  assert_trees_close(trajectory(optimiser, params, gradients), [params, params])


def test_lars_default_step_by_hand():
  # ‖w‖ = 5, ‖g‖ = 10: the step is 2·0.001·(5/10)·g; the bias takes 2·g.
  params = {'linear': {'w': np.float32([[3.0, 4.0]]), 'b': np.float32([1.0])}}
  gradient = {'linear': {'w': np.float32([[6.0, -8.0]]), 'b': np.float32([0.25])}}
  (after,) = trajectory(optim.lars(2.0, weight_decay=0.0), params, [gradient])
  np.testing.assert_allclose(after['linear']['w'], [[2.994, 4.008]], rtol=1e-6)
  np.testing.assert_allclose(after['linear']['b'], [0.5], rtol=1e-6)


@pytest.mark.parametrize('nesterov', [True, False])
def test_sgd_equals_numpy(nesterov):
  gradients = [random_tree(seed) for seed in range(1, 5)]

  def update(step, name, w, g, m):
    g = g + 0.1 * w if name == 'w' else g
    m = 0.9 * m + g
    return w - 0.05 * (g + 0.9 * m if nesterov else m), m

  optimiser = optim.create('sgd', 0.05, nesterov=nesterov, weight_decay=0.1)
  actual = trajectory(optimiser, initial_params(), gradients)
  assert_trees_close(actual, numpy_trajectory(update, initial_params(), gradients))


def test_adamw_decays_weights_only():
  # The first step of Adam is the sign of the gradient, whatever its size.
  params, gradient = initial_params(), random_tree(1)
  (after,) = trajectory(
    optim.create('adamw', 0.01, weight_decay=0.5), params, [gradient]
  )
  expected = {
    module: {
      name: w - 0.01 * (np.sign(gradient[module][name]) + 0.5 * w * (name == 'w'))
      for name, w in layer.items()
    }
    for module, layer in params.items()
  }
  assert_trees_close(after, expected)


def test_adamw_takes_parameters_without_names():
  (after,) = trajectory(optim.adamw(0.01, weight_decay=0.5), np.float32(1), [1.0])
  np.testing.assert_allclose(after, 0.99, rtol=1e-6)


def test_create_makes_lars():
  params, gradients = initial_params(), [random_tree(1)]
  actual = trajectory(optim.create('lars', 0.5, weight_decay=0.1), params, gradients)
  expected = trajectory(optim.lars(0.5, weight_decay=0.1), params, gradients)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_unknown_optimiser_lists_the_known():
  with pytest.raises(ValueError, match=r"'lamb'; use one of \['adamw', 'lars', 'sgd'"):
    optim.create('lamb', 0.1)


def test_target_decay():
  steps = jnp.array([0, 50, 100])
  decays = jax.jit(lambda k: optim.target_decay(k, 100, base_decay=0.9))(steps)
  np.testing.assert_allclose(decays, [0.9, 0.95, 1.0], rtol=1e-6)
  np.testing.assert_allclose(optim.target_decay(0, 100), 0.99, rtol=1e-6)


def test_constant_target_decay_stays():
  decays = optim.target_decay(jnp.arange(3), 3, base_decay=0.7, schedule='constant')
  np.testing.assert_allclose(decays, [0.7, 0.7, 0.7], rtol=1e-6)


def test_target_decay_refuses_an_unknown_schedule():
  with pytest.raises(ValueError, match=r"schedule 'linear'; use one of cosine, const"):
    optim.target_decay(0, 10, schedule='linear')


def test_ema_update():
  target, online = {'a': {'w': jnp.ones(2)}}, {'a': {'w': jnp.array([3.0, 5.0])}}
  updated = jax.jit(optim.ema_update)(target, online, optim.target_decay(0, 10, 0.75))
  np.testing.assert_allclose(updated['a']['w'], [1.5, 2.0], rtol=1e-6)


def test_ema_update_refuses_other_networks():
  with pytest.raises(AssertionError):
    optim.ema_update({'a': {'w': jnp.ones(2)}}, {'a': {'w': jnp.ones(3)}}, 0.5)


def test_weight_ema_equals_its_formula():
  values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
  average = optim.weight_ema(0.9)
  state = average.init({'w': jnp.asarray(values[0])})
  for t, value in enumerate(values, start=1):
    averaged, state = jax.jit(average.update)({'w': jnp.asarray(value)}, state)
    weights = 0.9 ** np.arange(t - 1, -1, -1)
    expected = weights @ values[:t] / weights.sum()
    np.testing.assert_allclose(averaged['w'], expected, rtol=1e-5, atol=1e-6)
    from_state = optim.averaged(state, 0.9)
    np.testing.assert_allclose(from_state['w'], expected, rtol=1e-5, atol=1e-6)


def test_weight_ema_decays_by_a_thousandth():
  average = optim.weight_ema()
  state = average.init(jnp.zeros(()))
  _, state = average.update(jnp.float32(1.0), state)
  averaged, _ = average.update(jnp.float32(0.0), state)
  # 0.999·0.001 / (1 - 0.999²)
  np.testing.assert_allclose(averaged, 0.999 / 1.999, rtol=1e-4)


def test_weight_ema_accumulates_in_float32():
  state = optim.weight_ema().init({'w': jnp.zeros(2, jnp.bfloat16)})
  assert state.ema['w'].dtype == jnp.float32


def test_cosine_on_the_host_is_that_of_optax():
  expected = optax.cosine_decay_schedule(0.2, 10)
  for step in (0, 3, 5, 10):
    np.testing.assert_allclose(
      optim.cosine(0.2, step, 10), expected(np.float32(step)), rtol=1e-6, atol=1e-8
    )
