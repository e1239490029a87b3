"""The SSL-HSIC loss: its terms, its kernel scale, and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslhsic import fourier, hsic, kernels, losses, pairs
from sslhsic.losses import ssl_hsic


def _projections(batch_size=16, dim=8, with_target=True):
  x = jax.random.normal(jax.random.key(0), (4, batch_size, dim))
  x = losses.l2_normalize(x + 2 * x[:1])
  return losses.Projections(x[:2], x[2:] if with_target else None)


@pytest.mark.parametrize('estimator', ssl_hsic.ESTIMATORS)
@pytest.mark.parametrize('with_target', [True, False])
def test_loss_is_made_of_its_terms(with_target, estimator):
  loss = losses.create('ssl_hsic', estimator=estimator)
  params = loss.init(jax.random.key(0), 8)
  projections = _projections(with_target=with_target)
  value, metrics = jax.jit(loss)(params, jax.random.key(1), projections)
  np.testing.assert_allclose(
    value, 3 * metrics['hsic_zz'] ** 0.5 - metrics['hsic_zy'], rtol=1e-6
  )
  np.testing.assert_array_equal(value, metrics['loss'])
  assert metrics['hsic_zz_not_positive'] == 0


FEATURES = {'estimator': 'features', 'num_features': 4096}


@pytest.mark.parametrize(
  ('settings', 'tolerance'),
  [
    ({**FEATURES, 'sampler': 'stratified'}, 0.02),
    ({**FEATURES, 'sampler': 'orthogonal'}, 0.02),
    ({**FEATURES, 'sampler': 'iid'}, 0.02),
    ({'estimator': 'pairs'}, 0.02),
    ({'estimator': 'exact'}, 1e-5),
  ],
)
def test_loss_approaches_the_exact_one(settings, tolerance):
  projections = _projections()
  loss = losses.create('ssl_hsic', **settings)
  kernel = kernels.InverseMultiquadric(1.0)
  zy = hsic.exact_hsic_zy(projections.views, kernel)
  zz = hsic.exact_hsic_zz(projections.views, kernel)
  params = loss.init(jax.random.key(0), 8)
  value, _ = jax.jit(loss)(params, jax.random.key(1), projections)
  np.testing.assert_allclose(value, 3 * zz**0.5 - zy, atol=tolerance)


def test_all_views_count():
  """A target network adds its projections to the features of an image."""
  assert _projections().views.shape == (4, 16, 8)
  assert _projections(with_target=False).views.shape == (2, 16, 8)


@pytest.mark.parametrize('case', range(4))
def test_kernel_scale_objective_is_the_published_one(golden_values, case):
  golden = lambda key: golden_values[f'case{case}/{key}']
  rows = jnp.asarray(golden('views')).reshape(-1, golden('d'))

  def mean_log_slope(scale):
    squared_distances = kernels.squared_distances(rows, rows)
    return kernels.InverseMultiquadric(scale).log_slope(squared_distances).mean()

  value_and_grad = jax.jit(jax.value_and_grad(mean_log_slope))
  value, gradient = value_and_grad(jnp.float32(golden('scale')))
  np.testing.assert_allclose(value, golden('kernel_grad_log_norm'), rtol=1e-4)
  np.testing.assert_allclose(gradient, golden('kernel_grad_log_norm_dscale'), rtol=1e-4)


def test_drawn_pairs_estimate_the_mean_over_all_pairs():
  views = _projections().views
  rows = views.reshape(-1, 8)
  kernel = kernels.InverseMultiquadric(0.5)
  expected = kernel.log_slope(kernels.squared_distances(rows, rows)).mean()
  estimate = lambda rng: ssl_hsic.mean_log_slope(kernel, rng, views)
  estimates = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 200))
  assert abs(estimates.mean() - expected) < 3 * estimates.std() / 200**0.5


def test_kernel_scale_sees_its_own_objective_only():
  loss = losses.create('ssl_hsic', estimator='features', num_features=64)
  projections, rng = _projections(), jax.random.key(1)

  def total(params):
    return loss(params, rng, projections)[0]

  def own(scale):
    kernel = kernels.InverseMultiquadric(scale)
    rows_rng = jax.random.split(rng, 3)[2]
    return -ssl_hsic.mean_log_slope(kernel, rows_rng, projections.views)

  gradient = jax.jit(jax.grad(total))(loss.init(rng, 8)).kernel_scale
  expected = jax.jit(jax.grad(own))(jnp.float32(1))
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize('kernel', ['inverse_multiquadric', 'gaussian'])
@pytest.mark.parametrize('estimator', ['pairs', 'exact'])
def test_scale_survives_a_collapse(kernel, estimator):
  """Equal features drive c to 0 and past it; others bring it back."""
  loss = losses.create('ssl_hsic', estimator=estimator, kernel=kernel)
  optimizer = optax.adam(0.02)

  @jax.jit
  def trained(params, projections):
    def step(carry, _):
      params, state = carry
      total = lambda params: loss(params, jax.random.key(1), projections)
      gradient, metrics = jax.grad(total, has_aux=True)(params)
      with jax.numpy_dtype_promotion('standard'):  # Optax needs it.
        updates, state = optimizer.update(gradient, state)
      return (optax.apply_updates(params, updates), state), (params, metrics)

    start = params, optimizer.init(params)
    (params, _), logged = jax.lax.scan(step, start, length=300)
    return params, logged

  projections = _projections()
  equal = losses.Projections(jnp.broadcast_to(projections.views[:1, :1], (2, 16, 8)))
  params, (learned, metrics) = trained(loss.init(jax.random.key(0), 8), equal)
  assert learned.kernel_scale.min() < 0.01
  assert metrics['kernel_scale'].min() >= 1e-3
  assert all(np.all(np.isfinite(x)) for x in metrics.values())
  # A negative kernel would take the images apart.
  assert loss(params, jax.random.key(1), projections)[1]['hsic_zy'] > 0
  again = trained(params, projections)[1][1]['kernel_scale']
  assert again[-1] > 0.2


def test_objective_of_the_scale_is_a_mean_over_the_pairs_of_the_estimator():
  """With T half the batch, over every pair of different images up to its order."""
  projections = _projections(batch_size=2)
  loss = losses.create('ssl_hsic', block_size=1)
  params = loss.init(jax.random.key(0), 8)
  _, metrics = jax.jit(loss)(params, jax.random.key(1), projections)
  rows = projections.views.reshape(-1, 8)
  kernel = kernels.InverseMultiquadric(1.0)
  expected = kernel.log_slope(kernels.squared_distances(rows, rows)).mean()
  np.testing.assert_allclose(metrics['kernel_log_slope'], expected, rtol=1e-5)


def test_features_of_pairs_do_not_see_the_objective_of_the_kernel_scale():
  """The gradient by the features is that of the terms alone."""
  loss = losses.create('ssl_hsic', block_size=2, gamma=2.0)
  params = loss.init(jax.random.key(0), 8)

  def of_loss(online):
    return loss(params, jax.random.key(1), losses.Projections(online))[0]

  def of_terms(online):
    kernel = kernels.InverseMultiquadric(1.0)
    terms, _ = pairs.estimate(online, kernel, block_size=2)
    return 2 * terms.hsic_zz**0.5 - terms.hsic_zy

  online = _projections(with_target=False).online
  gradient, expected = (jax.jit(jax.grad(f))(online) for f in (of_loss, of_terms))
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('hsic_zz', 'count', 'root'), [(4.0, 0, 2.0), (0.0, 1, 1e-7), (-1.0, 1, 1e-7)]
)
def test_root_of_an_estimate_that_is_not_positive(monkeypatch, hsic_zz, count, root):
  """It is a small constant without gradient, and counted."""

  def estimate(views, kernel, **_):
    scale = jnp.mean(views[0] ** 2)  # For a gradient to be seen.
    value = hsic_zz * scale / jax.lax.stop_gradient(scale)
    return hsic.Terms(jnp.float32(0), value, value), jnp.float32(0)

  monkeypatch.setattr(pairs, 'estimate', estimate)
  loss = losses.create('ssl_hsic', gamma=1.0)
  params = loss.init(jax.random.key(0), 8)

  def total(online):
    return loss(params, jax.random.key(1), losses.Projections(online))

  online = _projections(with_target=False).online
  (value, metrics), gradient = jax.value_and_grad(total, has_aux=True)(online)
  np.testing.assert_allclose(value, root, rtol=1e-5)
  assert metrics['hsic_zz_not_positive'] == count
  assert (jnp.linalg.norm(gradient) > 0) == (hsic_zz > 0)


def test_features_do_not_see_the_objective_of_the_kernel_scale():
  views = _projections().views
  kernel = kernels.InverseMultiquadric()
  mean = lambda views: ssl_hsic.mean_log_slope(kernel, jax.random.key(0), views)
  gradient = jax.jit(jax.grad(mean))(views)
  np.testing.assert_array_equal(gradient, jnp.zeros_like(views))


REGULARIZERS = {
  'root_hsic_zz': lambda terms: terms['hsic_zz'] ** 0.5,
  'hsic_zz': lambda terms: terms['hsic_zz'],
  'kernel_variance': lambda terms: terms['kernel_variance'] / 2,
  'none': lambda terms: 0.0,
}


@pytest.mark.parametrize('kernel', ssl_hsic.KERNELS)
def test_regularizer_is_what_gamma_weighs(kernel):
  create = functools.partial(
    losses.create, 'ssl_hsic', gamma=2.0, block_size=2, kernel=kernel
  )
  by_name = {name: create(regularizer=name) for name in REGULARIZERS}

  @jax.jit
  def measure(rng, projections):
    return {
      name: loss(loss.init(rng, 8), rng, projections) for name, loss in by_name.items()
    }

  measured = measure(jax.random.key(1), _projections())
  for name, of_terms in REGULARIZERS.items():
    value, terms = measured[name]
    np.testing.assert_allclose(
      value, 2 * of_terms(terms) - terms['hsic_zy'], 1e-5, err_msg=name
    )


@pytest.mark.parametrize('settings', [FEATURES, {'estimator': 'exact'}])
@pytest.mark.parametrize('name', ssl_hsic.KERNELS)
def test_terms_approach_the_exact_ones_of_the_kernel(name, settings):
  projections = _projections()
  loss = losses.create(
    'ssl_hsic', kernel=name, regularizer='kernel_variance', **settings
  )
  params = loss.init(jax.random.key(0), 8)
  kernel = loss.kernel_of(params)
  _, metrics = jax.jit(loss)(params, jax.random.key(1), projections)
  exact = hsic.exact(projections.views, kernel)
  for term in exact._fields:
    np.testing.assert_allclose(metrics[term], getattr(exact, term), 0.05)


def test_linear_kernel_learns_nothing():
  loss = losses.create('ssl_hsic', kernel='linear')
  assert not jax.tree.leaves(loss.init(jax.random.key(0), 8))
  assert 'kernel_scale' not in loss((), jax.random.key(1), _projections())[1]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'kernel': 'laplace'},
      "kernel = 'laplace'; use one of inverse_multiquadric, gauss",
    ),
    ({'regularizer': 'l2'}, "regularizer = 'l2'; use one of root_hsic_zz, hsic_zz, k"),
    ({'estimator': 'all'}, "estimator = 'all'; use one of pairs, exact, features"),
    (
      {'estimator': 'features', 'sampler': 'sobol'},
      "unknown sampler 'sobol'; use one of stratified, orthogonal, iid",
    ),
    (
      {'estimator': 'features', 'num_features': 7, 'sampler': 'stratified'},
      'num_features is 7',
    ),
    ({'block_size': 0}, 'block_size = 0; use a whole number of images, 1 or more'),
    ({'block_size': 2.0}, r'block_size = 2\.0; use a whole number'),
    ({'initial_scale': 0.0}, r'initial_scale = 0\.0; use a positive number'),
    (
      {'num_features': 512},
      "num_features = 512, a setting of the estimator 'features', but estimator = "
      "'pairs'; use num_features = None",
    ),
    ({'estimator': 'exact', 'block_size': 4}, 'block_size = 4, a setting of the est'),
    ({'estimator': 'exact', 'sampler': 'iid'}, "sampler = 'iid', a setting of the est"),
  ],
)
def test_settings_that_there_are_not_are_refused_at_once(settings, message):
  with pytest.raises(ValueError, match=message):
    losses.create('ssl_hsic', **settings)


def test_draws_of_each_device_give_the_mean_of_their_losses():
  """As published: each device has the whole batch and features of its own."""
  settings = {'num_features': 16, 'sampler': 'iid'}
  loss = losses.create(
    'ssl_hsic', estimator='features', draw_per_device=True, **settings
  )
  params, projections = loss.init(None, 8), _projections(batch_size=8)
  rng = jax.random.key(5)
  kernel = kernels.InverseMultiquadric(1.0)

  def of_draw(device, online):
    views = jnp.concatenate([online, projections.target])
    phi = [
      fourier.draw(kernel, rng=jax.random.fold_in(x, device), dim=8, **settings)(views)
      for x in jax.random.split(rng, 3)[:2]
    ]
    terms = hsic.from_features(*phi)
    return 3 * jnp.sqrt(terms.hsic_zz) - terms.hsic_zy

  expected, gradient = jax.value_and_grad(
    lambda online: sum(of_draw(device, online) for device in range(4)) / 4
  )(projections.online)
  spread = [float(of_draw(device, projections.online)) for device in range(4)]
  assert np.std(spread) > 1e-3  # The draws differ.

  def on_device(online, target):
    parts = losses.Projections(online, target)
    value = lambda x: loss(params, rng, parts._replace(online=x), 'devices')
    return jax.value_and_grad(value, has_aux=True)(online)

  shard = lambda x: x.reshape(2, 4, 2, 8).swapaxes(0, 1)
  mapped = jax.pmap(on_device, axis_name='devices', devices=jax.devices()[:4])
  (values, metrics), gradients = mapped(
    shard(projections.online), shard(projections.target)
  )
  np.testing.assert_allclose(values, np.full(4, expected), rtol=1e-5)
  np.testing.assert_allclose(metrics['loss'], values, rtol=1e-5)
  # Gradients are averaged over the devices afterwards.
  gathered = gradients.swapaxes(0, 1).reshape(2, 8, 8)
  np.testing.assert_allclose(gathered / 4, gradient, atol=1e-6)


def test_normalised_features_have_unit_norm_in_float32():
  x = losses.l2_normalize(jnp.bfloat16([[3.0, 4.0], [0.0, 0.0]]))
  assert x.dtype == jnp.float32
  np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_unknown_loss_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match=r"unknown loss 'hsic'; .* use one of ssl_hsic"):
    losses.create('hsic')


def test_batch_that_blocks_do_not_divide_is_an_error_before_training():
  check = lambda batch, **settings: losses.create('ssl_hsic', **settings).check_batch(
    local_batch=batch, batch_size=batch, num_targets=2
  )
  check(16, block_size=4)
  check(3, estimator='exact')
  with pytest.raises(ValueError, match='do not divide the 12 images'):
    check(12, block_size=4)
