"""What holds for every loss: equal on any number of devices, finite, float32."""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from sslhsic import losses
from sslhsic.networks import heads

EVERY_LOSS = [
  *(
    (name, with_target, {})
    for name in losses.LOSSES
    for with_target in (True, False)
    if with_target or not losses.create(name).needs_target
  ),
  ('ssl_hsic', True, {'block_size': 1, 'covariance': True}),
  ('ssl_hsic', True, {'estimator': 'features', 'regularizer': 'hsic_zz'}),
  ('ssl_hsic', False, {'estimator': 'features', 'sampler': 'orthogonal'}),
  ('ssl_hsic', True, {'estimator': 'features', 'sampler': 'stratified'}),
  ('ssl_hsic', False, {'kernel': 'gaussian', 'regularizer': 'kernel_variance'}),
  ('ssl_hsic', True, {'kernel': 'linear', 'regularizer': 'none'}),
  ('ssl_hsic', True, {'estimator': 'exact', 'regularizer': 'kernel_variance'}),
  ('ssl_hsic', False, {'estimator': 'exact'}),
]
every_loss = pytest.mark.parametrize(
  ('name', 'with_target', 'settings'),
  EVERY_LOSS,
  ids=lambda value: (
    '-'.join(map(str, value.values() if value else [])) or '-'
    if isinstance(value, dict)
    else str(value)
  ),
)


def _create(name, settings):
  if name == 'ssl_hsic' and settings.get('estimator') == 'features':
    settings = {'num_features': 32, **settings}
  if name == 'ssl_hsic' and 'estimator' not in settings:
    settings = {'block_size': 1, **settings}  # For two images on each of 8 devices.
  loss = losses.create(name, **settings)
  return loss, loss.init(jax.random.key(0), 8)


def _projections(loss, online, target=None):
  projections = losses.Projections(online, target)
  if loss.unit_norm:
    return jax.tree.map(losses.l2_normalize, projections)
  return projections


def _head(axis_name):
  """A head with batch norm over the devices, of all views at once."""
  head = functools.partial(
    heads.MLP, hidden_size=12, output_size=8, axis_name=axis_name
  )
  return hk.transform_with_state(lambda x: head()(x, is_training=True))


def _value_and_gradients(name, with_target, settings, images, axis_name=None):
  """(loss, terms), and gradients by the network's and the loss's parameters."""
  loss, loss_params = _create(name, settings)
  params, state = _head(None).init(jax.random.key(3), jnp.zeros([1, 6]))
  weights = jax.random.normal(jax.random.key(4), [6, 8])
  target = jnp.matmul(images, weights) if with_target else None

  def total(params, loss_params):
    rows = images.reshape(-1, 6)
    online, _ = _head(axis_name).apply(params, state, None, rows)
    projections = _projections(loss, online.reshape(*images.shape[:2], 8), target)
    return loss(loss_params, jax.random.key(1), projections, axis_name)

  grad_fn = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  values, gradients = grad_fn(params, loss_params)
  if axis_name:
    gradients = jax.lax.pmean(gradients, axis_name)
  return values, gradients


def _on_devices(function, features, num_devices):
  """Maps over the images: features [M, B, d], a part of each device."""
  num_views, _, dim = features.shape
  mapped = jax.pmap(
    functools.partial(function, axis_name='i'),
    axis_name='i',
    devices=jax.devices()[:num_devices],
  )
  return mapped(features.reshape(num_views, num_devices, -1, dim).swapaxes(0, 1))


@every_loss
def test_loss_and_gradients_are_equal_on_one_and_eight_devices(
  name, with_target, settings
):
  """Batch norm included, every term, and the parameters of the loss too."""
  images = jax.random.normal(jax.random.key(2), [2, 16, 6])
  function = functools.partial(_value_and_gradients, name, with_target, settings)
  values, gradients = jax.jit(function)(images)
  gradient_norm = optax.tree.norm(gradients)
  on_devices = _on_devices(function, images, 8)
  for x, y in zip(jax.tree.leaves(on_devices[0]), jax.tree.leaves(values), strict=True):
    # A loss is a difference of terms, so its error is theirs.
    np.testing.assert_allclose(x, np.full(8, y), rtol=1e-5, atol=1e-5)
  leaves = jax.tree_util.tree_leaves_with_path(gradients)
  for (path, y), x in zip(leaves, jax.tree.leaves(on_devices[1]), strict=True):
    # A bias before a batch norm has no gradient, only rounding.
    is_idle = "linear_0']['b']" in jax.tree_util.keystr(path)
    size = gradient_norm if is_idle else np.linalg.norm(y)
    for of_device in x:
      assert np.linalg.norm(of_device - y) <= 1e-5 * size, path


SHARDED = [
  *((name, {}) for name in losses.LOSSES),
  ('ssl_hsic', {'block_size': 1, 'covariance': True}),
  ('ssl_hsic', {'estimator': 'exact'}),
  ('ssl_hsic', {'estimator': 'features'}),
]


@pytest.mark.parametrize(('name', 'settings'), SHARDED, ids=str)
def test_gradient_in_shard_map_is_that_of_the_global_batch(name, settings):
  """Averaged over the devices; taken from outside, as it is."""
  loss, loss_params = _create(name, settings)
  images = jax.random.normal(jax.random.key(2), [2, 16, 6])
  weights = jax.random.normal(jax.random.key(4), [6, 8])

  def total(trained, images, axis_name=None):
    weights, loss_params = trained
    online = jnp.matmul(images, weights)
    target = jax.lax.stop_gradient(online) if loss.needs_target else None
    projections = _projections(loss, online, target)
    return loss(loss_params, jax.random.key(1), projections, axis_name)[0]

  def averaged(trained, images):
    return jax.lax.pmean(jax.grad(total)(trained, images, 'i'), 'i')

  copied = PartitionSpec()
  sharded = functools.partial(
    jax.shard_map,
    mesh=jax.sharding.Mesh(np.array(jax.devices()), ['i']),
    in_specs=(copied, PartitionSpec(None, 'i')),
    out_specs=copied,
  )
  from_outside = jax.grad(sharded(functools.partial(total, axis_name='i')))
  trained = weights, loss_params
  expected = jax.jit(jax.grad(total))(trained, images)
  # With the check on, JAX itself sums a gradient by what is the same everywhere.
  inside = sharded(averaged), sharded(averaged, check_vma=False)
  for gradient in (*inside, from_outside):
    chex.assert_trees_all_close(
      jax.jit(gradient)(trained, images), expected, rtol=1e-5, atol=1e-5
    )


@every_loss
def test_every_collective_counts(monkeypatch, name, with_target, settings):
  """A loss is wrong without any of the collectives that it uses."""

  def loss_alone(features, axis_name=None):
    loss, params = _create(name, settings)
    projections = _projections(
      loss, features[:2], features[2:] if with_target else None
    )
    value, metrics = loss(params, jax.random.key(1), projections, axis_name)
    # The objective of the kernel scale adds its gradient to the loss, not its value.
    return value + metrics.get('kernel_log_slope', 0.0)

  features = jax.random.normal(jax.random.key(2), [4, 16, 8])
  expected, used = jax.jit(loss_alone)(features), []
  for collective in ('psum', 'pmean', 'all_gather'):
    calls = []

    def dropped(x, axis_name, *, axis=0, tiled=False, name=collective, calls=calls):
      calls.append(axis_name)
      if name != 'all_gather':
        return x
      copies = [x] + [jnp.zeros_like(x)] * (jax.lax.axis_size(axis_name) - 1)
      return jnp.concatenate(copies, axis=axis)

    # A function of its own, of which JAX has no trace yet.
    traced = lambda *arguments, **named: loss_alone(*arguments, **named)
    on_devices = functools.partial(_on_devices, traced, num_devices=4)
    with monkeypatch.context() as patched:
      patched.setattr(jax.lax, collective, dropped)
      jax.eval_shape(on_devices, features)
      if not calls:  # Nothing was dropped.
        continue
      actual = on_devices(features)
    used.append(collective)
    assert np.abs(actual / expected - 1).max() > 1e-3, collective
  assert used


@every_loss
def test_degenerate_features_give_finite_gradients(name, with_target, settings):
  loss, params = _create(name, settings)

  @jax.jit
  def value_and_gradients(params, features):
    def total(params, features):
      projections = _projections(loss, features, features if with_target else None)
      return loss(params, jax.random.key(1), projections)[0]

    return jax.value_and_grad(total, argnums=(0, 1))(params, features)

  normal = functools.partial(jax.random.normal, jax.random.key(0))
  for what, features in {
    'equal': jnp.ones([2, 2, 8]),
    'zero': jnp.zeros([2, 2, 8]),
    'two images': normal([2, 2, 8]),
    'one dimension': normal([2, 4, 1]),
  }.items():
    for x in jax.tree.leaves(value_and_gradients(params, features)):
      assert np.all(np.isfinite(x)), what


@every_loss
def test_bfloat16_features_give_float32_statistics(name, with_target, settings):
  loss, params = _create(name, settings)
  features = jax.random.normal(jax.random.key(2), [4, 16, 8])
  projections = lambda x: losses.Projections(x[:2], x[2:] if with_target else None)
  unit = losses.l2_normalize(features).astype(jnp.bfloat16)

  @jax.jit
  def in_both_types(rng, unit):
    wide = unit.astype(jnp.float32)
    return [loss(params, rng, projections(x)) for x in (unit, wide)]

  (value, metrics), (expected, _) = in_both_types(jax.random.key(1), unit)
  assert {x.dtype for x in jax.tree.leaves((value, metrics))} == {jnp.dtype('float32')}
  np.testing.assert_allclose(value, expected, rtol=1e-5)
