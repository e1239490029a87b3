"""Is what an accelerator computes right? Each check is a program of its own.

  python -m benchmarks.accelerator_checks golden
  python -m benchmarks.accelerator_checks gradients FILE.npz [METHOD ...]
  python -m benchmarks.accelerator_checks resume [XLA_FLAGS]

'golden' compares HSIC and its gradient with values of the published implementation,
'gradients' writes loss and gradient of a pre-training step in float32, to be compared
with another device, and 'resume' kills a run and starts it again. The last
line that each prints is JSON.
"""

import concurrent.futures
import functools
import json
import os
import pathlib
import signal
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import faults, methods, step, tiny_runs
from configs.pretrain import digits
from sslhsic import fourier, hsic, parallel
from sslhsic.pretraining import step as step_lib
from sslhsic.runs import checkpoint

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / (
  'tests/data/ssl_hsic_published.npz'
)
# One of every loss and estimator.
CHECKED = tuple(x for x in methods.METHODS if x not in ('ssl_hsic, 64 stratified',))
DETERMINISTIC = '--xla_gpu_deterministic_ops=true'


def golden() -> dict:
  """Largest relative errors against the published implementation, in float32.

  Returns:
    'hsic_zy', 'hsic_zz', 'loss'; 'grad_views' by the largest entry of a gradient.
  """
  with np.load(GOLDEN, allow_pickle=False) as file:
    values = dict(file)
  errors = {}
  for case in sorted({key.split('/')[0] for key in values}):
    expected = {
      key.split('/')[1]: value for key, value in values.items() if key.startswith(case)
    }
    for name, found in _published_loss(expected).items():
      error = np.abs(found - expected[name]).max() / np.abs(expected[name]).max()
      errors[name] = max(errors.get(name, 0.0), float(error))
  return errors


def _published_loss(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  draw_a, draw_b = (
    fourier.RandomFeatures(jnp.float32(w / case['scale']), jnp.asarray(b))
    for w, b in zip(case['frequencies'], case['phases'], strict=True)
  )

  def loss(views):
    phi_a, phi_b = draw_a(views), draw_b(views)
    zy, zz = hsic.hsic_zy(phi_a), hsic.hsic_zz(phi_a, phi_b)
    return jnp.float32(case['gamma']) * jnp.sqrt(zz) - zy, (zy, zz)

  value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, (zy, zz)), gradient = value_and_grad(jnp.asarray(case['views']))
  found = {'hsic_zy': zy, 'hsic_zz': zz, 'loss': value, 'grad_views': gradient}
  return jax.tree.map(np.asarray, found)


def gradients(path: pathlib.Path, *chosen: str) -> dict:
  """Writes loss and gradient of a step on the digits, by method.

  Arrays are 'METHOD/loss' and 'METHOD/gradient/NAME'. All products are in float32.
  """
  jax.config.update('jax_default_matmul_precision', 'highest')
  arrays, failed = {}, {}
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    # Most of the time is compilation.
    futures = {x: pool.submit(_gradient, x) for x in chosen or CHECKED}
  for method, future in futures.items():
    if future.exception():
      failed[method] = f'{type(future.exception()).__name__}: {future.exception()}'
    else:
      arrays |= {f'{method}/{name}': x for name, x in future.result().items()}
  with path.open('wb') as file:
    np.savez(file, **arrays)
  return {'failed': failed}


def _gradient(method: str) -> dict[str, np.ndarray]:
  config = digits.get_config()
  name, settings = methods.METHODS[method]
  config.network.encoder_options = {
    'blocks_per_group': (1, 1),
    'channels_per_group': (8, 16),
  }
  config.network.head = {'hidden_size': 32, 'output_size': 16}
  config.training.batch_size = config.evaluation.batch_size = 64
  config.loss.name = name
  config.loss[name].update(settings)
  experiment = step.Experiment('train', jax.random.key(0), config)
  batch = next(experiment.input)
  gradients = functools.partial(step_lib.gradients, experiment.training)
  computed = parallel.pmap(gradients, in_axes=(0, 0, None, None))(
    experiment.state, batch, jax.random.key(1), jax.random.key(2)
  )
  found = parallel.first(computed)
  flat = checkpoint.flatten(jax.tree.map(np.asarray, found.params))
  return {'loss': np.asarray(found.scalars['loss'])} | {
    f'gradient/{name}': value for name, value in flat.items()
  }


def compare(found: pathlib.Path, expected: pathlib.Path) -> dict[str, dict]:
  """Relative errors of loss and gradient, by method.

  Returns:
    method -> 'loss'; 'gradient', ‖g − g'‖/‖g'‖ of all parameters together; 'worst', the
    largest such ratio of a parameter that has at least 1e-3 of the whole gradient, and
    its 'parameter'.
  """
  with np.load(found) as file, np.load(expected) as other:
    ours, theirs = dict(file), dict(other)
  rows = {}
  for method in {key.split('/')[0]: None for key in theirs}:
    if f'{method}/loss' not in ours:
      continue
    loss = theirs.pop(f'{method}/loss')
    prefix = f'{method}/gradient/'
    names = [key for key in theirs if key.startswith(prefix)]
    norms = {key: float(np.linalg.norm(theirs[key])) for key in names}
    errors = {key: float(np.linalg.norm(ours[key] - theirs[key])) for key in names}
    total = float(np.linalg.norm(list(norms.values())))
    ratios = {
      key.removeprefix(prefix): errors[key] / norms[key]
      for key in names
      if norms[key] > 1e-3 * total
    }
    worst = max(ratios, key=ratios.get)
    rows[method] = {
      'loss': float(abs(ours[f'{method}/loss'] - loss) / abs(loss)),
      'gradient': float(np.linalg.norm(list(errors.values()))) / total,
      'worst': ratios[worst],
      'parameter': worst,
    }
  return rows


def resume(flags: str = '') -> dict:
  """Kills a small run on the digits, starts it again, compares with an undisturbed one.

  Args:
    flags: of XLA, for all of them.

  Returns:
    'differences': names of what is not the same, bit for bit; 'killed_after', the last
    checkpoint when the run was killed; 'exit_code', other than -9 if it was not.
  """
  variables = {
    'JAX_PLATFORMS': os.environ.get('JAX_PLATFORMS', ''),
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip(),
  }
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    variables['JAX_COMPILATION_CACHE_DIR'] = os.environ['JAX_COMPILATION_CACHE_DIR']
  with tempfile.TemporaryDirectory() as directory:
    reference, workdir = (pathlib.Path(directory) / x for x in ('reference', 'run'))
    arguments = ('--mode=train', *tiny_runs.LONG)
    undisturbed = tiny_runs.start(reference, *arguments, devices=1, **variables)
    program = tiny_runs.start(workdir, *arguments, devices=1, **variables)
    program.wait_until(lambda: bool(tiny_runs.steps(workdir)))
    rng = np.random.default_rng(0)
    faults.kill(program, workdir, signal.SIGKILL, 'step', rng)
    code, saved = program.end(), tiny_runs.steps(workdir)
    tiny_runs.start(workdir, *arguments, devices=1, **variables).finish()
    undisturbed.finish()
    return {
      'exit_code': code,
      'killed_after': saved[-1] if saved else None,
      'differences': tiny_runs.differences(workdir, reference),
    }


def main(arguments: list[str]) -> None:
  """Runs the check that the arguments name."""
  check, *rest = arguments
  if check == 'golden':
    result = golden()
  elif check == 'gradients':
    result = gradients(pathlib.Path(rest[0]), *rest[1:])
  else:
    result = resume(*rest)
  print(json.dumps(result))


if __name__ == '__main__':
  main(sys.argv[1:])
