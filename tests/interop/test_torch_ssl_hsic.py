"""The loss in PyTorch is the loss in JAX, on any number of processes."""

import functools

import jax
import numpy as np
import pytest

from sslhsic import losses

torch = pytest.importorskip('torch')

from interop import torch_ssl_hsic  # noqa: E402

SETTINGS = [
  {'estimator': 'pairs', 'block_size': 4},
  {'estimator': 'pairs', 'block_size': 1},
  {'estimator': 'pairs', 'block_size': 2, 'covariance': True},
  {'estimator': 'exact'},
]
SCALE = 0.7


def _views(num_views=2, batch_size=16, dim=8, seed=0):
  """Views that are close to their image, not of unit norm."""
  rng = np.random.default_rng(seed)
  image = rng.normal(size=[1, batch_size, dim])
  return np.float32(image + 0.5 * rng.normal(size=[num_views, batch_size, dim]))


def _in_torch(settings, online, target=None):
  """Loss, and its gradients by the online features and by the kernel scale."""
  criterion = torch_ssl_hsic.SSLHSIC(initial_scale=SCALE, **settings)
  online = torch.tensor(online, requires_grad=True)
  loss, metrics = criterion(online, None if target is None else torch.tensor(target))
  loss.backward()
  assert metrics['loss'] == loss
  return loss.item(), online.grad.numpy(), criterion.kernel_scale.grad.item()


def _in_jax(settings, online, target=None):
  loss = losses.create('ssl_hsic', initial_scale=SCALE, **settings)

  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def value_and_gradients(online, params):
    unit = [None if x is None else losses.l2_normalize(x) for x in (online, target)]
    return loss(params, jax.random.key(0), losses.Projections(*unit))[0]

  params = loss.init(jax.random.key(0), online.shape[-1])
  value, (by_online, by_params) = jax.jit(value_and_gradients)(online, params)
  return value, by_online, by_params.kernel_scale


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@pytest.mark.parametrize('with_target', [True, False])
def test_loss_and_gradients_are_those_in_jax(settings, with_target):
  arguments = (_views(), _views(seed=1) if with_target else None)
  value, by_online, by_scale = _in_torch(settings, *arguments)
  expected_value, expected_by_online, expected_by_scale = _in_jax(settings, *arguments)
  np.testing.assert_allclose(value, expected_value, rtol=1e-5)
  np.testing.assert_allclose(by_online, expected_by_online, rtol=1e-4, atol=1e-6)
  if settings['estimator'] != 'exact':  # Which draws features there, to learn c.
    np.testing.assert_allclose(by_scale, expected_by_scale, rtol=1e-5)


@pytest.mark.parametrize('estimator', torch_ssl_hsic.ESTIMATORS)
@pytest.mark.parametrize('scale', [1.0, 0.0, -0.5])
def test_collapse_is_survived(estimator, scale):
  criterion = torch_ssl_hsic.SSLHSIC(estimator=estimator, initial_scale=scale)
  equal = torch.ones((2, 16, 8), requires_grad=True)
  loss, metrics = criterion(equal)
  loss.backward()
  for x in (loss, equal.grad, criterion.kernel_scale.grad):
    assert torch.isfinite(x).all()
  assert metrics['kernel_scale'] >= 1e-3
  # A negative kernel would take the images apart.
  assert criterion(torch.tensor(_views()))[1]['hsic_zy'] > 0


def test_features_learn_the_scale_from_all_views():
  rng = np.random.default_rng(0)
  alike = np.ones((2, 300, 8)) + 0.1 * rng.normal(size=(2, 300, 8))
  online, target = np.float32(alike), np.float32(rng.normal(size=(2, 300, 8)))
  rows = np.concatenate([online, target]).reshape(-1, 8)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  square = 2 - 2 * rows @ rows.T
  # Of -mean(log c - 3/2 log(s + c^2)).
  expected = np.mean(3 * SCALE / (square + SCALE**2) - 1 / SCALE)
  criterion = torch_ssl_hsic.SSLHSIC(
    initial_scale=SCALE, estimator='features', num_features=4
  )
  num_draws = 40
  for _ in range(num_draws):
    criterion(torch.tensor(online), torch.tensor(target))[0].backward()
  gradient = criterion.kernel_scale.grad.item() / num_draws
  assert gradient == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('case', range(4))
def test_features_give_the_published_loss(case, golden_values):
  golden = lambda key: torch.tensor(golden_values[f'case{case}/{key}'])
  views = golden('views').requires_grad_()
  phi_a, phi_b = (
    torch_ssl_hsic.fourier(views / golden('scale'), w, b)
    for w, b in zip(golden('frequencies'), golden('phases'), strict=True)
  )
  hsic_zy, hsic_zz = torch_ssl_hsic.features(phi_a, phi_b)
  (golden('gamma') * hsic_zz.sqrt() - hsic_zy).backward()
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
  close(hsic_zy.item(), golden('hsic_zy'))
  close(hsic_zz.item(), golden('hsic_zz'))
  close(views.grad, golden('grad_views'), atol=1e-5)


@pytest.mark.parametrize('case', range(4))
def test_exact_scale_objective_is_the_published_one(case, golden_values):
  golden = lambda key: torch.tensor(golden_values[f'case{case}/{key}'])
  scale = golden('scale').float().requires_grad_()
  log_slope = torch_ssl_hsic.exact(golden('views'), scale).log_slope
  log_slope.backward()
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
  close(log_slope.item(), golden('kernel_grad_log_norm'))
  close(scale.grad.item(), golden('kernel_grad_log_norm_dscale'))


def test_random_features_estimate_the_exact_terms():
  views = torch.nn.functional.normalize(torch.tensor(_views(4)), dim=-1)
  expected = torch_ssl_hsic.exact(views, torch.tensor(1.0))
  criterion = torch_ssl_hsic.SSLHSIC(estimator='features', num_features=20000)
  _, metrics = criterion(views)
  np.testing.assert_allclose(metrics['hsic_zy'], expected.hsic_zy, atol=0.01)
  np.testing.assert_allclose(metrics['hsic_zz'], expected.hsic_zz, rtol=0.05)
  _, others = criterion(views)
  assert others['hsic_zy'] != metrics['hsic_zy']


def test_autocast_does_not_reach_the_loss():
  online = torch.tensor(_views())
  criterion = torch_ssl_hsic.SSLHSIC()
  expected, _ = criterion(online)
  with torch.autocast('cpu', torch.bfloat16):
    loss, _ = criterion(online)
  assert loss.dtype == torch.float32
  assert loss == expected


def _run_process(rank, num_processes, path):
  """Saves what one of the processes gets from its share of the images."""
  torch.distributed.init_process_group(
    'gloo', f'file://{path}/store', rank=rank, world_size=num_processes
  )
  share = lambda x: np.ascontiguousarray(np.split(x, num_processes, axis=1)[rank])
  arrays = {}
  for number, settings in enumerate([*SETTINGS, {'estimator': 'features'}]):
    results = _in_torch(settings, share(_views()), share(_views(seed=1)))
    arrays |= {f'{number}/{i}': result for i, result in enumerate(results)}
  np.savez(path / f'{rank}.npz', **arrays)


def test_loss_on_two_processes_is_that_on_one(tmp_path):
  torch.multiprocessing.spawn(_run_process, (2, tmp_path), nprocs=2)
  first, second = (np.load(tmp_path / f'{rank}.npz') for rank in range(2))
  for number, settings in enumerate([*SETTINGS, {'estimator': 'features'}]):
    value, by_online, by_scale = _in_torch(settings, _views(), _views(seed=1))
    for results in (first, second):
      np.testing.assert_allclose(results[f'{number}/0'], value, rtol=1e-5)
      if settings['estimator'] != 'features':  # Compares features of a process, for c.
        np.testing.assert_allclose(results[f'{number}/2'], by_scale, rtol=1e-5)
    # An average over two processes halves the gradients by each one's features.
    joined = np.concatenate([first[f'{number}/1'], second[f'{number}/1']], axis=1) / 2
    np.testing.assert_allclose(joined, by_online, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('settings', 'shapes', 'message'),
  [
    (
      {'estimator': 'kernel'},
      [(2, 16, 8)],
      'use one of pairs, exact, features',
    ),
    ({}, [(2, 12, 8)], 'blocks of 8 images .* do not divide the 12 images'),
    ({}, [(1, 16, 8)], 'one view of each image'),
    ({}, [(16, 8)], r'online has shape \(16, 8\)'),
    ({}, [(2, 16, 8), (2, 8, 8)], r'target has shape \(2, 8, 8\), online \(2, 16, 8\)'),
  ],
)
def test_errors_say_what_to_do(settings, shapes, message):
  with pytest.raises(ValueError, match=message):
    torch_ssl_hsic.SSLHSIC(**settings)(*(torch.ones(shape) for shape in shapes))
