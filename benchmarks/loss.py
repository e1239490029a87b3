"""Gradient noise, time, memory and cost per device of every loss, in one run.

Run `python -m benchmarks.loss`. Features are unit vectors, two views of the online
network (with gradient) and two of the target network: M = 4, d = 256. The baseline is
the estimator of the published SSL-HSIC code, written out here: every device gathers the
whole batch, draws 512 independent frequencies with random phases of its own, and
computes the whole loss.

The gradient noise is the root mean square error of the gradient by the online features,
along the sphere that they are on, in norms of the exact gradient: over draws of random
features, or over orders of the images for pairs.

Prints tables, writes a figure, and prints the same as JSON on the last line.
"""

import functools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from sslhsic import fourier, hsic, kernels, losses, pairs
from sslhsic.plots import charts, panels
from sslhsic.tables import printed

_FIGURE = flags.DEFINE_string('figure', 'runs/loss_benchmark.png', 'Where it goes.')
_COSTS_OF = flags.DEFINE_integer(
  'costs_of', 0, 'Prints costs on many devices at this batch size only, as JSON.'
)

BATCH_SIZES = (512, 1024, 2048, 4096, 8192)
DEVICE_COUNTS = (1, 2, 4, 8)
BASELINE = 'published'
EXACT = 'ssl_hsic, exact'
# On a CPU; its cost is quadratic.
LARGEST_EXACT_BATCH = 2048
ROUNDS = 8
# Draws, or orders of the batch, by batch size.
DRAWS = {512: 60, 4096: 12}
GAMMA = 3.0


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
    params = loss.init(rng, projections.online.shape[-1])
    return loss(params, rng, projections, axis_name)[0]

  return value


METHODS = {
  BASELINE: published,
  'ssl_hsic, pairs, T = 4': _ours('ssl_hsic', block_size=4),
  'ssl_hsic, pairs, T = 16': _ours('ssl_hsic', block_size=16),
  'ssl_hsic, pairs, T = 64': _ours('ssl_hsic', block_size=64),
  'ssl_hsic, T = 8, covariance': _ours('ssl_hsic', block_size=8, covariance=True),
  EXACT: _ours('ssl_hsic', estimator='exact'),
  'ssl_hsic, 64 stratified': _ours(
    'ssl_hsic', estimator='features', num_features=64, sampler='stratified'
  ),
  'ssl_hsic, 512 stratified': _ours(
    'ssl_hsic', estimator='features', num_features=512, sampler='stratified'
  ),
  **{name: _ours(name) for name in losses.LOSSES if name != 'ssl_hsic'},
}
KERNEL = kernels.InverseMultiquadric()


class Estimator(NamedTuple):
  """An estimator of the terms of SSL-HSIC, at kernel scale 1.

  Attributes:
    terms: of the online and the target features, and a key.
    is_random: whether it depends on the key; if not, on the order of the images.
  """

  terms: Callable[[chex.Array, chex.Array, chex.PRNGKey], hsic.Terms]
  is_random: bool


def _of_features(num_features: int, sampler: str) -> Estimator:
  def terms(online, target, rng):
    views = jnp.concatenate([online, target])
    draw = functools.partial(
      fourier.draw,
      KERNEL,
      dim=views.shape[-1],
      num_features=num_features,
      sampler=sampler,
    )
    phi_a, phi_b = (draw(rng=key)(views) for key in jax.random.split(rng))
    return hsic.from_features(phi_a, phi_b)

  return Estimator(terms, is_random=True)


def _of_pairs(block_size: int, *, covariance: bool = False) -> Estimator:
  def terms(online, target, rng):
    del rng  # Nothing is random.
    return pairs.estimate(
      [online, target], KERNEL, block_size=block_size, covariance=covariance
    )[0]

  return Estimator(terms, is_random=False)


ESTIMATORS = {
  '512 iid (published)': _of_features(512, 'iid'),
  '512 stratified': _of_features(512, 'stratified'),
  '512 orthogonal': _of_features(512, 'orthogonal'),
  '64 stratified': _of_features(64, 'stratified'),
  '64 orthogonal': _of_features(64, 'orthogonal'),
  **{f'pairs, T = {size}': _of_pairs(size) for size in (1, 2, 4, 8, 16, 32, 64)},
  **{
    f'T = {size}, covariance': _of_pairs(size, covariance=True) for size in (1, 8, 16)
  },
}


def unit_features(batch_size: int, dim: int = 256, num_views: int = 4) -> chex.Array:
  """Random features [M, B, d] of images whose views resemble each other."""
  x = jax.random.normal(jax.random.key(0), [num_views, batch_size, dim])
  return losses.l2_normalize(x + 2 * x[:1])


def clustered_features(
  batch_size: int, dim: int = 256, num_views: int = 4, num_classes: int = 10
) -> chex.Array:
  """Features [M, B, d] of images of ten classes, as a trained network gives them.

  The inner product of two views is 0.87 on average, of two images of a class 0.54, and
  of two classes 0.
  """
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = [(num_classes, dim), (batch_size, dim), (num_views, batch_size, dim)]
  of_class, of_image, of_view = (
    losses.l2_normalize(jax.random.normal(key, shape))
    for key, shape in zip(keys, shapes, strict=True)
  )
  of_image = (
    0.33**0.5 * of_image + 0.54**0.5 * of_class[jnp.arange(batch_size) % num_classes]
  )
  return losses.l2_normalize(of_image[None] + 0.13**0.5 * of_view)


def _two_and_two(views: chex.Array) -> tuple[chex.Array, chex.Array]:
  """Features of the online and of the target network, arrays of their own."""
  return jnp.array(views[:2]), jnp.array(views[2:])


def close_features(batch_size: int, dim: int = 256, num_views: int = 4) -> chex.Array:
  """Features [M, B, d] that have most of their direction in common, as at the start.

  The inner product of two images is 0.92 on average.
  """
  of_images = unit_features(batch_size, dim, num_views)
  common = losses.l2_normalize(jax.random.normal(jax.random.key(1), [1, 1, dim]))
  return losses.l2_normalize(common + 0.3 * of_images)


FEATURES = {
  'random': unit_features,
  'clustered': clustered_features,
  'close': close_features,
}


def value_and_gradient(method, axis_name=None):
  """A function (online, target, rng) -> (loss, its gradient by the online features)."""

  def of_online(online, target, rng):
    return method(losses.Projections(online, target), rng, axis_name)

  return jax.value_and_grad(of_online)


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
  inputs = {size: _two_and_two(unit_features(size, dim)) for size in batch_sizes}
  compiled = {
    (size, name): jax.jit(value_and_gradient(method))
    .lower(*views, jax.random.key(0))
    .compile()
    for size, views in inputs.items()
    for name, method in METHODS.items()
    if name != EXACT or size <= LARGEST_EXACT_BATCH or jax.default_backend() != 'cpu'
  }
  seconds = {key: math.inf for key in compiled}
  for step in range(rounds):
    for (size, name), function in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(function(*inputs[size], jax.random.key(step)))
      elapsed = time.perf_counter() - start
      seconds[size, name] = min(seconds[size, name], elapsed)
  return {
    size: {
      name: {
        'seconds': seconds[size, name],
        'temporary_bytes': compiled[size, name].memory_analysis().temp_size_in_bytes,
      }
      for name in METHODS
      if (size, name) in compiled
    }
    for size in batch_sizes
  }


# Noise.


def noise(batch_size: int, dim: int = 256, draws: int = 60) -> dict:
  """Errors of value and gradient of every estimator, against the exact ones.

  Returns:
    features -> estimator -> 'hsic_zy', 'hsic_zz': root mean square errors of the value,
    relative to the exact one; 'gradient_hsic_zy', 'gradient_loss': of the gradient by
    the online features, along the sphere, in norms of the exact one;
    'bias_hsic_zy': length of the mean error of that gradient, in units of what it is
    for an unbiased estimator, about 1; 'not_positive': share of estimates of HSIC(Z,Z).
  """
  return {
    name: _noise_of(make(batch_size, dim), draws) for name, make in FEATURES.items()
  }


_EXACT = Estimator(
  lambda online, target, _: hsic.exact([online, target], KERNEL), is_random=True
)


def _noise_of(views: chex.Array, draws: int) -> dict:
  online, target = views[:2], views[2:]
  values, gradients = _values_and_gradients(_EXACT)(online, target, jax.random.key(0))
  result = {}
  for name, estimator in ESTIMATORS.items():
    measure = _values_and_gradients(estimator)
    orders, found, errors = np.random.default_rng(0), [], []
    for key in jax.random.split(jax.random.key(1), draws):
      order = np.arange(views.shape[1])
      if not estimator.is_random:
        order = orders.permutation(order)
      value, gradient = measure(online[:, order], target[:, order], key)
      found.append(value)
      errors.append(gradient[:, :, np.argsort(order)] - gradients)
    norm = lambda x: jnp.linalg.norm(x.reshape(2, -1), axis=1)
    noise = jnp.sqrt(sum(norm(error) ** 2 for error in errors) / draws)
    bias = norm(sum(errors)) / (noise * draws**0.5)
    found = np.array(found)
    relative = np.sqrt(np.mean((found / np.array([values]) - 1) ** 2, axis=0))
    result[name] = {
      'hsic_zy': float(relative[0]),
      'hsic_zz': float(relative[1]),
      'gradient_hsic_zy': float((noise / norm(gradients))[0]),
      'gradient_loss': float((noise / norm(gradients))[1]),
      'bias_hsic_zy': float(bias[0]),
      'not_positive': float(np.mean(found[:, 1] <= 0)),
    }
  return result


@functools.cache
def _values_and_gradients(estimator: Estimator):
  """A compiled function of the features: HSIC(Z,Y), HSIC(Z,Z); and [2, 2, B, d].

  The second are the gradients of HSIC(Z,Y) and of the loss by the online features, less
  their parts along the features, which no network gets.
  """

  @jax.jit
  def measure(online, target, rng):
    def both(online):
      terms = estimator.terms(online, target, rng)
      loss = GAMMA * jnp.sqrt(jnp.maximum(terms.hsic_zz, 1e-14)) - terms.hsic_zy
      return (terms.hsic_zy, loss), jnp.stack([terms.hsic_zy, terms.hsic_zz])

    _, pullback, values = jax.vjp(both, online, has_aux=True)
    full = jnp.stack([pullback(unit)[0] for unit in ((1.0, 0.0), (0.0, 1.0))])
    along = jnp.sum(full * online[None], axis=-1, keepdims=True)
    return values, full - along * online[None]

  return measure


# Cost on many devices.


def cost_per_device(batch_size: int, dim: int = 256) -> dict:
  """FLOPs and bytes exchanged of a device, by method and number of devices.

  FLOPs are counted by `flops`; bytes are the sizes of what the collectives of the
  compiled program (all-reduce, all-gather and so on) return.
  """
  views = _two_and_two(unit_features(batch_size, dim))
  result = {name: {} for name in METHODS}
  for name, method in METHODS.items():
    for count in DEVICE_COUNTS:
      spread = [x.reshape(2, count, -1, dim).swapaxes(0, 1) for x in views]
      mapped = jax.pmap(
        value_and_gradient(method, 'i'),
        axis_name='i',
        in_axes=(0, 0, None),
        devices=jax.devices()[:count],
      )
      arguments = *spread, jax.random.key(0)
      program = mapped.lower(*arguments).compile().as_text()
      result[name][count] = {
        'flops': flops(jax.make_jaxpr(mapped)(*arguments).jaxpr),
        'exchanged_bytes': exchanged_bytes(program) if count > 1 else 0,
      }
  return result


def _costs_in_own_process(batch_size: int, dim: int) -> dict:
  """`cost_per_device`, on fake devices that would slow down what is timed."""
  del dim  # The default.
  flag = f'--xla_force_host_platform_device_count={max(DEVICE_COUNTS)}'
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.loss', f'--costs_of={batch_size}'],
    env=os.environ | {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flag}'},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  by_method = json.loads(done.stdout.splitlines()[-1])
  return {
    name: {int(count): cost for count, cost in by_count.items()}
    for name, by_count in by_method.items()
  }


def flops(jaxpr: jax.extend.core.Jaxpr) -> int:
  """Floating-point operations of a program: its products, and one an entry of the rest.

  XLA's own count takes the body of a loop once, however often it runs.
  """
  total = 0
  for equation in jaxpr.eqns:
    # Loops, calls and checkpoints hold a program, closed or not.
    inner = [
      getattr(x, 'jaxpr', x)
      for x in jax.tree.leaves(equation.params)
      if hasattr(x, 'eqns')
    ]
    if inner:
      repeats = equation.params['length'] if equation.primitive.name == 'scan' else 1
      total += repeats * sum(map(flops, inner))
      continue
    sizes = [math.prod(x.aval.shape) for x in equation.outvars if _is_float(x.aval)]
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      total += 2 * sum(sizes) * math.prod(shape[axis] for axis in contracted)
    elif equation.primitive.name not in _MOVES:
      total += sum(sizes)
  return total


# What moves numbers and computes none.
_MOVES = (
  'broadcast_in_dim',
  'concatenate',
  'convert_element_type',
  'copy',
  'dynamic_slice',
  'dynamic_update_slice',
  'gather',
  'pad',
  'reshape',
  'slice',
  'squeeze',
  'transpose',
)


def _is_float(aval) -> bool:
  return jnp.issubdtype(getattr(aval, 'dtype', None), jnp.floating)


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
  batch_sizes=BATCH_SIZES,
  dim: int = 256,
  rounds: int = ROUNDS,
  draws=None,
  costs: Callable[[int, int], dict] = cost_per_device,
) -> dict:
  """All measurements.

  Args:
    batch_sizes: B, of time and memory.
    dim: d.
    rounds: how often each pass is timed.
    draws: batch size -> how many draws or orders the noise is measured over.
    costs: `cost_per_device`, or what runs it elsewhere.
  """
  by_batch = time_and_memory(batch_sizes, dim, rounds)
  slopes = {}
  for name in METHODS:
    sizes = [size for size in batch_sizes if name in by_batch[size]]
    seconds = [by_batch[size][name]['seconds'] for size in sizes]
    slopes[name] = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
  return {
    'benchmark': 'loss',
    'noise': {b: noise(b, dim, count) for b, count in (draws or DRAWS).items()},
    'time_and_memory': by_batch,
    'slopes': slopes,
    'cost_per_device': costs(batch_sizes[len(batch_sizes) * 3 // 4], dim),
    'device': jax.devices()[0].device_kind,
    'cores': os.cpu_count(),
    'versions': {'jax': jax.__version__},
  }


def tables(measured: dict) -> str:
  """The measurements as lines of text."""
  sections = [
    _noise_table(
      measured['noise'],
      ('gradient_hsic_zy', 'gradient_loss', 'bias_hsic_zy'),
      'error of the gradient in norms of the exact one: of HSIC(Z,Y) / of the loss '
      '(bias of the first; 1: none)',
      lambda row: '{:.3f} / {:.2f} ({:.1f})'.format(*row),
    ),
    _time_table(measured),
    _cost_table(measured['cost_per_device']),
    _noise_table(
      measured['noise'],
      ('hsic_zy', 'hsic_zz', 'not_positive'),
      'relative error of the value: HSIC(Z,Y) / HSIC(Z,Z) (estimates not positive)',
      lambda row: '{:.4f} / {:.4f} ({:.0%})'.format(*row),
    ),
  ]
  return '\n\n'.join(sections)


def _noise_table(by_batch, fields, title, cell):
  columns = [(b, features) for b, rows in by_batch.items() for features in rows]
  rows = [['', *(f'B = {b}, {features}' for b, features in columns)]]
  for name in ESTIMATORS:
    cells = [
      cell([by_batch[b][features][name][field] for field in fields])
      for b, features in columns
    ]
    rows.append([name, *cells])
  return f'{title}\n{printed.columns(rows, 24, first=26)}'


def _time_table(measured):
  by_batch = measured['time_and_memory']
  lines = [['B =', *by_batch, 'slope']]
  for name in METHODS:
    cells = []
    for rows in by_batch.values():
      if name not in rows:
        cells.append('')
        continue
      ratio = rows[BASELINE]['seconds'] / rows[name]['seconds']
      memory = rows[name]['temporary_bytes'] / 2**20
      cells.append(f'{1e3 * rows[name]["seconds"]:.1f} ({memory:.0f}; {ratio:.2f}x)')
    lines.append([name, *cells, f'{measured["slopes"][name]:.2f}'])
  title = (
    'forward + backward: milliseconds (MiB of temporary memory; published / this time)'
  )
  return f'{title}\n{printed.columns(lines, 24, first=26)}'


def _cost_table(by_method):
  rows = [['devices =', *next(iter(by_method.values()))]]
  for name, by_count in by_method.items():
    cells = [
      f'{cost["flops"] / 1e9:.2f} ({cost["exchanged_bytes"] / 2**20:.3f})'
      for cost in by_count.values()
    ]
    rows.append([name, *cells])
  title = 'per device: GFLOP (MiB exchanged)'
  return f'{title}\n{printed.columns(rows, 20, first=26)}'


@panels.look()
def plot(measured: dict, path: pathlib.Path) -> None:
  """Gradient noise, time, memory and cost, a panel each."""
  by_batch, costs = measured['time_and_memory'], measured['cost_per_device']
  figure, (errors, times, memory, work) = panels.open_figure(4, size=(3.6, 4.4))
  _plot_noise(errors, measured['noise'])
  of_batch = lambda field, unit: {
    name: [
      (b, rows[name][field] / unit) for b, rows in by_batch.items() if name in rows
    ]
    for name in METHODS
  }
  flops = {
    name: [(count, cost['flops'] / 1e9) for count, cost in costs[name].items()]
    for name in METHODS
  }
  _plot_sizes(times, of_batch('seconds', 1), 'seconds', 'images in the batch')
  megabytes = of_batch('temporary_bytes', 2**20)
  _plot_sizes(memory, megabytes, 'temporary memory, MiB', 'images in the batch')
  _plot_sizes(work, flops, 'GFLOP per device', 'devices')
  handles, labels = times.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=6)
  path.parent.mkdir(parents=True, exist_ok=True)
  panels.save(figure, path)


def _plot_sizes(axis, series: dict, title: str, x_label: str) -> None:
  """Lines on log axes, with a tick at every size that was measured."""
  charts.lines(axis, series, log_x=True, log_y=True)
  sizes = sorted({size for points in series.values() for size, _ in points})
  axis.set_xticks(sizes, [str(size) for size in sizes])
  axis.minorticks_off()
  axis.set(title=title, xlabel=x_label)


def _plot_noise(axis, by_batch: dict) -> None:
  """Bars: error of the gradient of the loss by estimator, at the smallest batch."""
  batch_size, by_features = min(by_batch.items())
  places, height = np.arange(len(ESTIMATORS)), 0.8 / len(by_features)
  for shift, (features, rows) in enumerate(by_features.items()):
    errors = [rows[name]['gradient_loss'] for name in ESTIMATORS]
    place = places + height * (shift - (len(by_features) - 1) / 2)
    axis.barh(place, errors, height, label=f'{features} features')
  axis.axvline(1, color=panels.INK, linewidth=0.8)
  axis.set_xscale('log')
  axis.set_yticks(places, list(ESTIMATORS))
  axis.invert_yaxis()
  axis.set_title(f'error of the gradient / its norm, B = {batch_size}')
  axis.legend()
  axis.grid(visible=False, axis='y')


def main(_) -> None:
  """Measures at the sizes of the paper."""
  if _COSTS_OF.value:
    print(json.dumps(cost_per_device(_COSTS_OF.value)))
    return
  measured = measure(costs=_costs_in_own_process)
  print(tables(measured))
  path = pathlib.Path(_FIGURE.value)
  plot(measured, path)
  print(f'figure: {path}')
  print(json.dumps(measured))


if __name__ == '__main__':
  app.run(main)
