"""Where a step in PyTorch and one in JAX differ: the layers of ResNet-18, one by one.

`python -m benchmarks.layers` times each 3×3 convolution of ResNet-18 at 32 pixels on
this machine: forward, the gradient by its input and the gradient by its weights, and
batch norm with ReLU, forward and backward. Both frameworks compute in turns in one
process, in float32, on maps [n, h, w, c] in memory (channels_last), PyTorch as it is
called outside of torch.compile, which leaves convolutions to the same library. Prints
GFLOP/s of convolutions and GB/s of batch norm (its maps count once for every pass over
them that is necessary: three forward, five backward), medians over the turns.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from sslhsic.networks import layers

_TURNS = flags.DEFINE_integer('layer_turns', 7, 'How many each framework has.')
_IMAGES = flags.DEFINE_integer('layer_images', 64, 'Images in a batch.')

FRAMEWORKS = ('jax', 'torch')
CONVOLUTIONS = ('forward', 'input gradient', 'weight gradient')
BATCH_NORM = 'batch norm and ReLU'
_MAP_PASSES = 8


class Layer(NamedTuple):
  """Side of the square maps in pixels, and their channels, before and after."""

  side: int
  channels: int


RESNET18 = (Layer(32, 64), Layer(16, 128), Layer(8, 256), Layer(4, 512))


def measure(
  layer: Layer, *, num_images: int, turns: int
) -> dict[str, dict[str, float | None]]:
  """Speed by operation and framework; None where PyTorch is not installed."""
  rng = np.random.default_rng(0)
  shape = (num_images, layer.side, layer.side, layer.channels)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  maps, gradient = draw(*shape), draw(*shape)
  kernel = draw(3, 3, layer.channels, layer.channels)
  calls = {'jax': _jax_calls(maps, gradient, kernel)}
  if importlib.util.find_spec('torch'):
    calls['torch'] = _torch_calls(maps, gradient, kernel)
  work = dict.fromkeys(CONVOLUTIONS, 2 * maps.size * 9 * layer.channels / 1e9)
  work[BATCH_NORM] = _MAP_PASSES * maps.nbytes / 1e9
  speeds: dict[str, dict[str, float | None]] = {}
  for operation, amount in work.items():
    seconds = _in_turns([of[operation] for of in calls.values()], turns)
    found = dict(zip(calls, (amount / taken for taken in seconds), strict=True))
    speeds[operation] = {name: found.get(name) for name in FRAMEWORKS}
  return speeds


def _in_turns(calls: list[Callable[[], Any]], turns: int) -> list[float]:
  """Median seconds of each."""
  taken: list[list[float]] = [[] for _ in calls]
  for turn in range(turns + 1):
    for times, call in zip(taken, calls, strict=True):
      call()  # The threads of the other framework go to sleep meanwhile.
      start = time.perf_counter()
      call()
      if turn:  # The first turn compiles.
        times.append(time.perf_counter() - start)
  return [statistics.median(times) for times in taken]


def _jax_calls(maps, gradient, kernel) -> dict[str, Callable[[], Any]]:
  def convolve(x, w):
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=dimensions
    )

  def by_input(x, w, g):
    return jax.vjp(lambda x: convolve(x, w), x)[1](g)

  def by_weights(x, w, g):
    return jax.vjp(lambda w: convolve(x, w), w)[1](g)

  x, w, g = jnp.asarray(maps), jnp.asarray(kernel), jnp.asarray(gradient)

  def call(function, *arguments):
    return lambda: jax.block_until_ready(function(*arguments))

  return {
    'forward': call(jax.jit(convolve), x, w),
    'input gradient': call(jax.jit(by_input), x, w, g),
    'weight gradient': call(jax.jit(by_weights), x, w, g),
    BATCH_NORM: call(jax.jit(_normalise_and_back), x, g),
  }


def _normalise_and_back(x: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
  """Batch norm of this library and ReLU, and the gradient by the maps."""
  network = hk.transform_with_state(
    lambda x: jax.nn.relu(
      layers.batch_norm(x, is_training=True, axis_name=None, name='norm')
    )
  )
  params, state = network.init(None, x)
  apply = lambda x: network.apply(params, state, None, x)[0]
  value, back = jax.vjp(apply, x)
  return value, *back(g)


def _torch_calls(maps, gradient, kernel) -> dict[str, Callable[[], Any]]:
  import torch

  channels_last = lambda array, axes: torch.from_numpy(
    np.ascontiguousarray(array.transpose(axes))
  ).contiguous(memory_format=torch.channels_last)
  x, g = (channels_last(array, (0, 3, 1, 2)) for array in (maps, gradient))
  w = channels_last(kernel, (3, 2, 0, 1))
  norm = torch.nn.BatchNorm2d(maps.shape[-1])

  def back(*wanted):
    return torch.ops.aten.convolution_backward(
      g, x, w, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, wanted
    )

  def normalise_and_back():
    inputs = x.detach().requires_grad_()
    torch.relu(norm(inputs)).backward(g)
    return inputs.grad

  return {
    'forward': lambda: torch.conv2d(x, w, padding=1),
    'input gradient': lambda: back(True, False, False),
    'weight gradient': lambda: back(False, True, False),
    BATCH_NORM: normalise_and_back,
  }


def row(layer: Layer, operation: str, speeds: dict[str, float | None]) -> str:
  """A row of the table, in Markdown."""
  unit = 'GB/s' if operation == BATCH_NORM else 'GFLOP/s'
  jax_speed, torch_speed = (speeds[name] for name in FRAMEWORKS)
  cells = ['' if x is None else f'{x:.3g}' for x in (jax_speed, torch_speed)]
  ratio = '' if torch_speed is None else f'{jax_speed / torch_speed:.2f}'
  maps = f'{layer.side}×{layer.side}×{layer.channels}'
  return f'| {maps} | {operation}, {unit} | {" | ".join(cells)} | {ratio} |'


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  print('| maps | operation | JAX | PyTorch | ratio |\n|---|---|---|---|---|')
  for layer in RESNET18:
    found = measure(layer, num_images=_IMAGES.value, turns=_TURNS.value)
    for operation, speeds in found.items():
      print(row(layer, operation, speeds), flush=True)


if __name__ == '__main__':
  app.run(main)
