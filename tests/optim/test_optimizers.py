"""Optimisers against Optax, loops in NumPy and values by hand."""

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


def create(name, learning_rate, weight_decay=0.0, decayed=('w',), **settings):
  config = optim.settings(name, **settings)
  config |= {'weight_decay': weight_decay, 'decayed': decayed}
  return optim.create(config, learning_rate)


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
  optimiser = create('lars', schedule, weight_decay=decay, trust_coefficient=0.02)
  actual = trajectory(optimiser, initial_params(), gradients)
  assert_trees_close(actual, numpy_trajectory(update, initial_params(), gradients))


def test_lars_of_zero_gradients_keeps_its_ratio_at_one():
  # Without decay the norm of the gradient is 0, and w, m must stay finite.
  params = random_tree(0)
  gradients = [jax.tree.map(np.zeros_like, params)] * 2
  optimiser = create('lars', 0.5)
  assert_trees_close(trajectory(optimiser, params, gradients), [params, params])


def test_lars_default_step_by_hand():
  # ‖w‖ = 5, ‖g‖ = 10: the step is 2·0.001·(5/10)·g; the bias takes 2·g.
  params = {'linear': {'w': np.float32([[3.0, 4.0]]), 'b': np.float32([1.0])}}
  gradient = {'linear': {'w': np.float32([[6.0, -8.0]]), 'b': np.float32([0.25])}}
  (after,) = trajectory(create('lars', 2.0), params, [gradient])
  np.testing.assert_allclose(after['linear']['w'], [[2.994, 4.008]], rtol=1e-6)
  np.testing.assert_allclose(after['linear']['b'], [0.5], rtol=1e-6)


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'momentum': 0.5},
    {'momentum': 0.5, 'nesterov': True},
    {'trust_coefficient': 0.1},
  ],
  ids=str,
)
def test_lars_is_that_of_optax_at_a_constant_learning_rate(settings):
  is_weight = {
    module: {name: name == 'w' for name in layer} for module, layer in SHAPES.items()
  }
  theirs = optax.lars(
    0.5,
    weight_decay=0.1,
    weight_decay_mask=is_weight,
    trust_ratio_mask=is_weight,
    **settings,
  )
  assert_equal_steps(create('lars', 0.5, 0.1, **settings), theirs)


@pytest.mark.parametrize(
  'settings',
  [{}, {'momentum': 0.0}, {'momentum': 0.5}, {'momentum': 0.5, 'nesterov': True}],
  ids=str,
)
def test_sgd_is_that_of_optax(settings):
  theirs = optax.sgd(0.05, **{'momentum': 0.9, **settings})
  assert_equal_steps(create('sgd', 0.05, **settings), theirs)


@pytest.mark.parametrize(
  'settings', [{}, {'b1': 0.5}, {'b2': 0.5}, {'eps': 0.3}], ids=str
)
def test_adamw_is_that_of_optax(settings):
  theirs = optax.adamw(0.01, weight_decay=0.5, **settings)
  ours = create('adamw', 0.01, 0.5, decayed=('*',), **settings)
  assert_equal_steps(ours, theirs)


def assert_equal_steps(ours, theirs):
  """Of our optimiser and theirs, and unlike those of another setting."""
  params, gradients = initial_params(), [random_tree(seed) for seed in range(1, 5)]
  with jax.numpy_dtype_promotion('standard'):
    expected = trajectory(theirs, params, gradients)
  assert_trees_close(trajectory(ours, params, gradients), expected)


@pytest.mark.parametrize('nesterov', [True, False])
def test_decay_of_sgd_is_part_of_the_gradient(nesterov):
  gradients = [random_tree(seed) for seed in range(1, 5)]

  def update(step, name, w, g, m):
    g = g + 0.1 * w if name == 'w' else g
    m = 0.9 * m + g
    return w - 0.05 * (g + 0.9 * m if nesterov else m), m

  optimiser = create('sgd', 0.05, weight_decay=0.1, nesterov=nesterov)
  actual = trajectory(optimiser, initial_params(), gradients)
  assert_trees_close(actual, numpy_trajectory(update, initial_params(), gradients))


def test_adamw_decays_what_is_to_decay():
  # The first step of Adam is the sign of the gradient, whatever its size.
  params, gradient = initial_params(), random_tree(1)
  optimiser = create('adamw', 0.01, weight_decay=0.5, decayed=('w', 'scale'))
  (after,) = trajectory(optimiser, params, [gradient])
  decay = {'w': 0.5, 'scale': 0.5}
  expected = {
    module: {
      name: w - 0.01 * (np.sign(gradient[module][name]) + decay.get(name, 0.0) * w)
      for name, w in layer.items()
    }
    for module, layer in params.items()
  }
  assert_trees_close(after, expected)


TRANSFORMER = {
  'encoder/~/patches': {'w': 0, 'b': 0},
  'encoder/block/linear': {'w': 0, 'b': 0},
  'encoder/block/layer_norm': {'scale': 0, 'offset': 0},
  'encoder': {'positions': 0, 'class_token': 0},
  'predictor/linear': {'w': 0},
}


@pytest.mark.parametrize(
  ('patterns', 'expected'),
  [
    (('w',), 'patches/w block/linear/w predictor/linear/w'),
    ((), ''),
    (
      ('*', '!positions', '!class_token', '!predictor/*', '!encoder/block/*'),
      'patches/w patches/b',
    ),
    (('w', '!encoder/*', 'encoder/block/*/w'), 'block/linear/w predictor/linear/w'),
    (('*_token', 'o*'), 'layer_norm/offset encoder/class_token'),
  ],
)
def test_patterns_mark_parameters(patterns, expected):
  marks = optim.matching(patterns)(TRANSFORMER)
  found = {
    f'{module}/{name}'
    for module, layer in marks.items()
    for name, is_marked in layer.items()
    if is_marked
  }
  assert len(found) == len(expected.split())
  assert all(any(x.endswith(end) for x in found) for end in expected.split())


def test_star_marks_everything_and_parameters_without_names():
  assert all(jax.tree.leaves(optim.matching(('*',))(TRANSFORMER)))
  (after,) = trajectory(create('adamw', 0.01, 0.5, ('*',)), np.float32(1), [1.0])
  np.testing.assert_allclose(after, 1 - 0.01 * 1.5, rtol=1e-6)
  assert optim.matching(('w',))(()) == ()


@pytest.mark.parametrize('pattern', ['position', '!position', 'patches/w'])
def test_pattern_that_matches_nothing_is_an_error(pattern):
  message = rf"decayed = .* '{pattern}' matches no parameter of encoder/class_token, "
  with pytest.raises(ValueError, match=message):
    create('lars', 0.1, decayed=('w', pattern)).init(TRANSFORMER)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    ({'name': 'lamb'}, r"unknown optimiser 'lamb'; use one of adamw, lars, sgd"),
    ({'sgd': {'b1': 0.9}}, "sgd has no setting 'b1'; use one of momentum, nesterov"),
    ({'sgd': {'momentum': 1.0}}, 'momentum is 1.0; use 0 or more, and less than 1'),
    ({'sgd': {'momentum': -0.1}}, 'momentum is -0.1; use 0 or more'),
    ({'weight_decay': -0.1}, 'weight_decay is -0.1; use 0 or more'),
    ({'name': 'lars', 'lars': {'momentum': 1.5}}, 'momentum is 1.5'),
    ({'name': 'lars', 'lars': {'trust_coefficient': 0.0}}, 'trust_coefficient is 0.0'),
    ({'name': 'adamw', 'adamw': {'b1': 1.0}}, 'b1 is 1.0'),
    ({'name': 'adamw', 'adamw': {'b2': float('nan')}}, 'b2 is nan'),
    ({'name': 'adamw', 'adamw': {'eps': 0.0}}, 'eps is 0.0; use a positive number'),
  ],
)
def test_mistakes_name_the_field(config, message):
  config = {'name': 'sgd', 'weight_decay': 0.0, 'decayed': ('w',), **config}
  with pytest.raises(ValueError, match=f'^config.loss.optimizer: .*{message}'):
    optim.create(config, 0.1, field='config.loss.optimizer')


def test_weight_decay_can_be_given_apart():
  params, gradients = initial_params(), [random_tree(1)]
  config = {**optim.settings('sgd'), 'decayed': ('w',)}
  ours = optim.create(config, 0.1, weight_decay=jnp.float32(0.5))
  expected = trajectory(create('sgd', 0.1, 0.5), params, gradients)
  assert_trees_close(trajectory(ours, params, gradients), expected)


def test_description_follows_the_configuration():
  config = {**optim.settings('sgd', momentum=0.5), 'decayed': ('w', 'scale')}
  settings = 'sgd (momentum 0.5, nesterov False)'
  assert optim.describe(config) == f'{settings}, weight decay of w, scale'
  config['weight_decay'] = 1e-4
  assert optim.describe(config) == f'{settings}, weight decay 0.0001 of w, scale'
  config['weight_decay'] = 0.0
  assert optim.describe(config) == f'{settings}, no weight decay'
