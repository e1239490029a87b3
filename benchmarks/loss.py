"""Time, memory, noise and cost per device of every loss, side by side in one run.

Run `python -m benchmarks.loss`. Features are random unit vectors, two views of the
online network (with gradient) and two of the target network: M = 4, d = 256. The
baseline is the estimator of the published SSL-HSIC code, written out here: every
device gathers the whole batch, draws 512 independent frequencies with random phases of
its own, and computes the whole loss.

Prints tables, writes a figure, and prints as the last line the same as JSON.
"""

import functools
import json
import math
import os
import pathlib
import re
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib import figure

from sslhsic import fourier, hsic, kernels, losses

_FIGURE = flags.DEFINE_string('figure', 'runs/loss_benchmark.png', 'Where it goes.')

BATCH_SIZES = (512, 1024, 2048, 4096, 8192)
DEVICE_COUNTS = (1, 2, 4, 8)
BASELINE = 'published'
ROUNDS = 8
DRAWS = 60


# The published estimator.


def published_hsic(
  phi_a: chex.Array, phi_b: chex.Array
) -> tuple[chex.Array, chex.Array]:
  """HSIC(Z,Y) and HSIC(Z,Z), from all features [M, B, D] of two draws."""
  num_views, batch_size, num_features = phi_a.shape
  count = num_views * batch_size
  within = jnp.sum(phi_a.sum(axis=0) ** 2) / (count * (num_views - 1))
  zy = within - jnp.sum((phi_a.sum(axis=(0, 1)) / count) ** 2)
  a, b = (phi.reshape(count, num_features) for phi in (phi_a, phi_b))
  a, b = a - a.mean(axis=0, keepdims=True), b - b.mean(axis=0, keepdims=True)
  return zy, jnp.sum((jnp.matmul(a.T, b) / count) ** 2)


def published(
  projections: losses.Projections, rng: chex.PRNGKey, axis_name: str | None = None
) -> chex.Array:
  """The published loss, γ = 3, with its objective of the kernel scale."""
  views = projections.views
  if axis_name:
    views = jax.lax.all_gather(views, axis_name, axis=1, tiled=True)
    rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
  *draw_rngs, rows_rng = jax.random.split(rng, 3)
  kernel = kernels.InverseMultiquadric()
  zy, zz = published_hsic(
    *(_published_features(kernel, rng, views) for rng in draw_rngs)
  )
  rows = jax.lax.stop_gradient(views).reshape(-1, views.shape[-1])
  x, y = rows[jax.random.randint(rows_rng, [2, 1024], 0, len(rows))]
  slope = kernel.log_slope(kernels.squared_distances(x, y)).mean()
  return 3 * jnp.sqrt(zz) - zy - slope


def _published_features(kernel, rng, views):
  draw = fourier.draw(kernel, rng, dim=views.shape[-1], num_features=512, sampler='iid')
  angles = jnp.matmul(views, draw.frequencies.T) + draw.phases[None, None]
  return math.sqrt(2 / 512) * jnp.cos(angles)


# What is compared.


def _ours(name, **settings):
  loss = losses.create(name, **settings)

  def value(projections, rng, axis_name=None):
    params = loss.init(rng)
    return loss(params, rng, projections, axis_name)[0]

  return value


METHODS = {
  BASELINE: published,
  'ssl_hsic, 64 stratified': _ours('ssl_hsic', num_features=64),
  'ssl_hsic, 512 stratified': _ours('ssl_hsic', num_features=512),
  'ssl_hsic, 512 orthogonal': _ours('ssl_hsic', num_features=512, sampler='orthogonal'),
  'ssl_hsic, 512 iid': _ours('ssl_hsic', num_features=512, sampler='iid'),
  'info_nce': _ours('info_nce'),
  'byol': _ours('byol'),
  'barlow_twins': _ours('barlow_twins'),
  'vicreg': _ours('vicreg'),
}
SAMPLERS = (
  ('iid', 512),
  ('stratified', 64),
  ('stratified', 512),
  ('orthogonal', 64),
  ('orthogonal', 512),
)


def unit_features(batch_size: int, dim: int = 256, num_views: int = 4) -> chex.Array:
  """Features [M, B, d] of images whose views resemble each other."""
  x = jax.random.normal(jax.random.key(0), [num_views, batch_size, dim])
  return losses.l2_normalize(x + 2 * x[:1])


def value_and_gradient(method, axis_name=None):
  """A function (views, rng) -> (loss, its gradient by the online features)."""

  def of_online(online, target, rng):
    return method(losses.Projections(online, target), rng, axis_name)

  grad_fn = jax.value_and_grad(of_online)
  return lambda views, rng: grad_fn(views[:2], views[2:], rng)


# Time and memory.


def time_and_memory(
  batch_sizes: tuple[int, ...], dim: int = 256, rounds: int = ROUNDS
) -> dict:
  """Seconds and bytes of a forward and backward pass on one device.

  Methods and batch sizes take turns, so that what else the machine does hits all alike;
  the time is the least of all rounds.

  Returns:
    batch size -> method -> 'seconds', 'temporary_bytes'.
  """
  inputs = {size: unit_features(size, dim) for size in batch_sizes}
  compiled = {
    (size, name): jax.jit(value_and_gradient(method))
    .lower(views, jax.random.key(0))
    .compile()
    for size, views in inputs.items()
    for name, method in METHODS.items()
  }
  seconds = {key: math.inf for key in compiled}
  for step in range(rounds):
    for (size, name), function in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(function(inputs[size], jax.random.key(step)))
      elapsed = time.perf_counter() - start
      seconds[size, name] = min(seconds[size, name], elapsed)
  return {
    size: {
      name: {
        'seconds': seconds[size, name],
        'temporary_bytes': compiled[size, name].memory_analysis().temp_size_in_bytes,
      }
      for name in METHODS
    }
    for size in batch_sizes
  }


# Noise.


def noise(batch_size: int, dim: int = 256, draws: int = DRAWS) -> dict:
  """Root mean square error of the estimates against the exact value, by sampler."""
  views, kernel = unit_features(batch_size, dim), kernels.InverseMultiquadric()
  exact = _exact(views, kernel)
  result = {}
  for sampler, num_features in SAMPLERS:
    draw = functools.partial(
      fourier.draw, kernel, dim=dim, num_features=num_features, sampler=sampler
    )

    @jax.jit
    def estimate(rng, draw=draw):
      phi_a, phi_b = (draw(key)(views) for key in jax.random.split(rng))
      return jnp.stack([hsic.hsic_zy(phi_a), hsic.hsic_zz(phi_a, phi_b)])

    keys = jax.random.split(jax.random.key(1), draws)
    estimates = np.stack([estimate(key) for key in keys])
    error = np.sqrt(np.mean((estimates - exact) ** 2, axis=0))
    result[f'{num_features} {sampler}'] = dict(
      zip(('hsic_zy', 'hsic_zz'), error.tolist(), strict=True)
    )
  result['exact'] = dict(zip(('hsic_zy', 'hsic_zz'), exact, strict=True))
  return result


def gradient_noise(batch_size: int, dim: int = 256, draws: int = DRAWS) -> dict:
  """Root mean square error of the gradient, by sampler; in norms of the exact one.

  Along the sphere that the features are on, which is all that a network gets of it.
  """
  views = unit_features(batch_size, dim)

  def gradient_of(**settings):
    value_and_grad = value_and_gradient(_ours('ssl_hsic', **settings))

    @jax.jit
    def gradient(views, rng):
      _, full = value_and_grad(views, rng)
      online = views[:2]
      return full - jnp.sum(full * online, axis=-1, keepdims=True) * online

    return functools.partial(gradient, views)

  exact = np.asarray(gradient_of(sampler='exact')(jax.random.key(0)))
  keys = jax.random.split(jax.random.key(1), draws)
  errors = {}
  for sampler, num_features in SAMPLERS:
    gradient = gradient_of(sampler=sampler, num_features=num_features)
    squares = [np.sum((np.asarray(gradient(key)) - exact) ** 2) for key in keys]
    errors[f'{num_features} {sampler}'] = float(
      np.sqrt(np.mean(squares)) / np.linalg.norm(exact)
    )
  return errors


def _exact(views, kernel, block=512):
  """HSIC(Z,Y) and HSIC(Z,Z) from all pairs, a block of the Gram matrix at a time."""
  num_views, batch_size, dim = views.shape
  rows = views.swapaxes(0, 1).reshape(-1, dim)  # The views of an image together.

  @jax.jit
  def moments(x):
    gram = kernel(x, rows)
    return gram.mean(axis=1), jnp.mean(gram**2, axis=1)

  block = math.gcd(block, len(rows))
  blocks = [moments(x) for x in rows.reshape(-1, block, dim)]
  means, squares = np.concatenate(blocks, axis=1).astype(np.float64)
  of_image = jax.jit(jax.vmap(lambda x: kernel(x, x).sum()))
  within = np.asarray(of_image(rows.reshape(batch_size, num_views, dim)), np.float64)
  zy = within.sum() / (batch_size * num_views * (num_views - 1)) - means.mean()
  zz = squares.mean() - 2 * np.mean(means**2) + means.mean() ** 2
  return float(zy), float(zz)


# Cost on many devices.


def cost_per_device(batch_size: int, dim: int = 256) -> dict:
  """FLOPs and bytes exchanged of a device, by method and number of devices.

  FLOPs are XLA's own count for the program that each device runs; bytes are the sizes
  of what its collectives (all-reduce, all-gather and so on) return.
  """
  views = unit_features(batch_size, dim)
  result = {name: {} for name in METHODS}
  for name, method in METHODS.items():
    for count in DEVICE_COUNTS:
      spread = views.reshape(4, count, -1, dim).swapaxes(0, 1)
      mapped = jax.pmap(
        value_and_gradient(method, 'i'),
        axis_name='i',
        in_axes=(0, None),
        devices=jax.devices()[:count],
      )
      lowered = mapped.lower(spread, jax.random.key(0))
      compiled = lowered.compile()
      result[name][count] = {
        'flops': compiled.cost_analysis()['flops'],
        'exchanged_bytes': exchanged_bytes(compiled.as_text()) if count > 1 else 0,
      }
  return result


_COLLECTIVE = re.compile(
  r'= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)'
  r'(?:-start)?\('
)
_ARRAY = re.compile(r'\b(?:f|s|u|bf|pred)(\d*)\[([\d,]*)\]')


def exchanged_bytes(program: str) -> int:
  """Bytes that the collectives of a compiled program (HLO text) return."""
  total = 0
  for shapes in _COLLECTIVE.findall(program):
    for bits, sizes in _ARRAY.findall(shapes):
      total += math.prod(map(int, filter(None, sizes.split(',')))) * int(bits or 8) // 8
  return total


# Everything, and how it is shown.


def measure(
  batch_sizes=BATCH_SIZES, dim: int = 256, rounds: int = ROUNDS, draws: int = DRAWS
) -> dict:
  """All measurements."""
  by_batch = time_and_memory(batch_sizes, dim, rounds)
  slopes = {
    name: np.polyfit(
      np.log(batch_sizes),
      np.log([by_batch[b][name]['seconds'] for b in batch_sizes]),
      1,
    )[0]
    for name in METHODS
  }
  return {
    'benchmark': 'loss',
    'time_and_memory': by_batch,
    'slopes': slopes,
    'noise': {b: noise(b, dim, draws) for b in batch_sizes},
    'gradient_noise': gradient_noise(min(batch_sizes), dim, draws),
    'cost_per_device': cost_per_device(batch_sizes[len(batch_sizes) * 3 // 4], dim),
    'device': jax.devices()[0].device_kind,
    'cores': os.cpu_count(),
    'versions': {'jax': jax.__version__},
  }


def tables(measured: dict) -> str:
  """The measurements as lines of text."""
  sections = [
    _time_table(measured),
    _noise_table(measured['noise']),
    _gradient_noise_table(measured['gradient_noise']),
    _cost_table(measured['cost_per_device']),
  ]
  return '\n\n'.join('\n'.join(lines) for lines in sections)


def _time_table(measured):
  by_batch = measured['time_and_memory']
  lines = [
    'forward + backward: milliseconds (MiB of temporary memory; published / this time)',
    f'{"B =":26}' + ''.join(f'{b:>24}' for b in by_batch) + f'{"slope":>8}',
  ]
  for name in METHODS:
    cells = []
    for rows in by_batch.values():
      ratio = rows[BASELINE]['seconds'] / rows[name]['seconds']
      memory = rows[name]['temporary_bytes'] / 2**20
      cells.append(f'{1e3 * rows[name]["seconds"]:.1f} ({memory:.0f}; {ratio:.2f}x)')
    slope = f'{measured["slopes"][name]:8.2f}'
    lines.append(f'{name:26}' + ''.join(f'{cell:>24}' for cell in cells) + slope)
  return lines


def _noise_table(by_batch):
  lines = [
    'root mean square error of the estimates: HSIC(Z,Y) / HSIC(Z,Z)',
    f'{"B =":26}' + ''.join(f'{b:>24}' for b in by_batch),
  ]
  for name in next(iter(by_batch.values())):
    cells = [
      f'{rows[name]["hsic_zy"]:.4f} / {rows[name]["hsic_zz"]:.1e}'
      for rows in by_batch.values()
    ]
    lines.append(f'{name:26}' + ''.join(f'{cell:>24}' for cell in cells))
  return lines


def _gradient_noise_table(by_sampler):
  title = 'root mean square error of the gradient, in norms of the exact one'
  return [title, *(f'{name:26}{error:24.3f}' for name, error in by_sampler.items())]


def _cost_table(by_method):
  counts = list(next(iter(by_method.values())))
  lines = [
    'per device: GFLOP (MiB exchanged)',
    f'{"devices =":26}' + ''.join(f'{count:>20}' for count in counts),
  ]
  for name, by_count in by_method.items():
    cells = [
      f'{cost["flops"] / 1e9:.2f} ({cost["exchanged_bytes"] / 2**20:.2f})'
      for cost in by_count.values()
    ]
    lines.append(f'{name:26}' + ''.join(f'{cell:>20}' for cell in cells))
  return lines


def plot(measured: dict, path: pathlib.Path) -> None:
  """Time, memory, noise and cost, a panel each."""
  by_batch, noises = measured['time_and_memory'], measured['noise']
  picture = figure.Figure(figsize=(13, 3.8))
  times, memory, errors, costs = picture.subplots(1, 4)
  for name in METHODS:
    style = 'k--' if name == BASELINE else '.-'
    rows = [row[name] for row in by_batch.values()]
    times.loglog(list(by_batch), [row['seconds'] for row in rows], style, label=name)
    megabytes = [row['temporary_bytes'] / 2**20 for row in rows]
    memory.loglog(list(by_batch), megabytes, style)
    cost = measured['cost_per_device'][name]
    costs.loglog(list(cost), [row['flops'] / 1e9 for row in cost.values()], style)
  for name in (f'{count} {sampler}' for sampler, count in SAMPLERS):
    values = [row[name]['hsic_zy'] for row in noises.values()]
    errors.loglog(list(noises), values, '.-', label=name)
  titles = (
    'seconds',
    'temporary memory, MiB',
    'error of HSIC(Z,Y)',
    'GFLOP per device',
  )
  for axis, title in zip((times, memory, errors, costs), titles, strict=True):
    axis.set_title(title, fontsize=10)
    axis.set_xlabel('devices' if axis is costs else 'images in the batch')
    ticks = list(measured['cost_per_device'][BASELINE] if axis is costs else by_batch)
    axis.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
  errors.legend(fontsize=7)
  handles, labels = times.get_legend_handles_labels()
  picture.legend(handles, labels, loc='lower center', ncols=len(METHODS), fontsize=7)
  picture.tight_layout(rect=(0, 0.08, 1, 1))
  path.parent.mkdir(parents=True, exist_ok=True)
  picture.savefig(path, dpi=110)


def main(_) -> None:
  """Measures at the sizes of the paper."""
  # JAX starts with the first array: costs are measured on fake devices of this machine.
  os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
  )
  measured = measure()
  print(tables(measured))
  path = pathlib.Path(_FIGURE.value)
  plot(measured, path)
  print(f'figure: {path}')
  print(json.dumps(measured))


if __name__ == '__main__':
  app.run(main)
