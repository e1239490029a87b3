"""Speed, memory and utilisation of the training step, by network, loss and precision.

Run `python -m benchmarks.step`; flags say what of. The step is that of
`experiments.pretrain` with its loader, on all devices of this machine: two views, a
target network, and the settings of the case's configuration. Images are made up (JPEG
files), but for the digits.

  images/s    of steps that follow each other, those in preparation left out
  data wait   share of that time that the steps waited for the loader
  compile s   tracing and compiling the step
  MiB         memory of a device that the step needs: XLA's sum of arguments, results
              and temporaries, less what results take over from arguments
  GFLOP       of the networks for an image: XLA's count of a forward pass, three times
              for the online network (a backward pass is worth two), once for the
              target network, for both views. What is computed again for lack of memory
              does not count, nor do augmentation, loss and optimiser
  MFU         GFLOP · images/s over the peak of the devices, where that is known

If torch is importable and there is one device, the same step is measured in PyTorch
too; see `benchmarks.step_torch`. Prints tables and, as the last line, the same as JSON.
"""

import functools
import importlib.util
import json
import os
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags

from benchmarks import loader as loader_benchmark
from configs.pretrain import cifar10, digits, imagenet, imagenette
from experiments import pretrain
from sslhsic import parallel
from sslhsic.networks import branches

LOSSES = ('ssl_hsic', 'info_nce', 'byol', 'barlow_twins', 'vicreg')
PRECISIONS = ('float32', 'bfloat16')
WARM_UP_STEPS = 2


class Case(NamedTuple):
  """A network at an image size.

  Attributes:
    config: the configuration.
    image: height and width of the made-up images; None: those of the configuration.
    batch_size: images per device on an accelerator.
    cpu_batch_size: on a CPU.
    cpu_losses: those that are measured on a CPU if no flag says more.
  """

  config: Any
  image: tuple[int, int] | None
  batch_size: int
  cpu_batch_size: int
  cpu_losses: tuple[str, ...] = ('ssl_hsic',)


CASES = {
  'digits': Case(digits, None, 128, 128, LOSSES),
  'resnet18_32': Case(cifar10, (32, 32), 512, 32),
  'resnet18_128': Case(imagenette, (160, 213), 256, 16),
  'resnet50_224': Case(imagenet, (375, 500), 128, 4),
}

# Dense TFLOP/s of a device by `device_kind`, for bfloat16 and for what JAX makes of
# float32 by default: TF32 on these GPUs, one pass of bfloat16 on a TPU. TPUs: peak
# compute per chip at cloud.google.com/tpu/docs, of which a TPU v3 has two devices.
# GPUs: as stated for NVIDIA's A100, H100 SXM and H200, without sparsity.
PEAK_TFLOPS = {
  'NVIDIA A100-SXM4-40GB': (312, 156),
  'NVIDIA A100-SXM4-80GB': (312, 156),
  'NVIDIA H100 80GB HBM3': (989, 495),
  'NVIDIA H200': (989, 495),
  'TPU v3': (61.5, 61.5),
  'TPU v4': (275, 275),
  'TPU v5 lite': (197, 197),
  'TPU v5': (459, 459),
  'TPU v6 lite': (918, 918),
}


def config_of(
  case: Case,
  folder: pathlib.Path,
  *,
  batch_size: int = 0,
  loss: str = 'ssl_hsic',
  precision: str = 'float32',
  num_microbatches: int = 1,
) -> ml_collections.ConfigDict:
  """The configuration of a measurement.

  Args:
    case: the network.
    folder: where made-up images are written, if there are none yet.
    batch_size: images per device; 0: that of the case.
    loss, precision, num_microbatches: settings of the configuration.
  """
  config = case.config.get_config()
  if case.image:
    config.data.source = f'folder:{_made_up_images(folder, case.image)}'
    config.data.train_split = 'train'
    config.evaluation.train_split = config.evaluation.test_split = 'train'
  on_cpu = parallel.devices()[0].platform == 'cpu'
  cores_to_spare = 0 if on_cpu else os.cpu_count() - 1
  config.data.num_workers = min(config.data.num_workers, cores_to_spare)
  per_device = batch_size or (case.cpu_batch_size if on_cpu else case.batch_size)
  devices = len(parallel.devices())
  config.training.batch_size = config.evaluation.batch_size = per_device * devices
  config.training.epochs = 10**6  # More than are taken.
  config.training.warmup_epochs = 10**3
  config.training.precision = precision
  config.training.num_microbatches = num_microbatches
  config.loss.name = loss
  return config


def _made_up_images(
  folder: pathlib.Path, shape: tuple[int, int], num_classes: int = 10, count: int = 16
) -> pathlib.Path:
  """A folder with JPEG files in folders of classes."""
  root = folder / 'x'.join(map(str, shape))
  for number in range(num_classes):
    of_class = root / str(number)
    if not of_class.exists():
      of_class.mkdir(parents=True)
      loader_benchmark.write_jpegs(of_class, count, shape)
  return root


def measure_step(config: ml_collections.ConfigDict, seconds: float) -> dict:
  """Takes steps for some time, after those that compile and warm up.

  Returns:
    images_per_second, data_wait_share, compile_s, device_bytes.
  """
  experiment = pretrain.Pretrain('train', jax.random.key(0), config)
  rng = jax.random.key(1)
  start = time.perf_counter()
  waited = experiment.data_wait_s
  compiled = experiment.compile(rng)
  compile_s = time.perf_counter() - start - (experiment.data_wait_s - waited)
  for step in range(WARM_UP_STEPS):
    jax.block_until_ready(experiment.step(step, rng))
  start, waited = time.perf_counter(), experiment.data_wait_s
  steps, before = 0, None
  while not steps or time.perf_counter() - start < seconds:
    scalars = experiment.step(WARM_UP_STEPS + steps, rng)
    jax.block_until_ready(before)  # One step ahead, as the runner is.
    before, steps = scalars, steps + 1
  jax.block_until_ready(before)
  elapsed = time.perf_counter() - start
  return {
    'images_per_second': steps * config.training.batch_size / elapsed,
    'data_wait_share': min((experiment.data_wait_s - waited) / elapsed, 1.0),
    'compile_s': compile_s,
    'device_bytes': device_bytes(compiled),
  }


def device_bytes(compiled: jax.stages.Compiled) -> int | None:
  """Memory that a compiled program needs on a device, by XLA's analysis."""
  memory = compiled.memory_analysis()
  if memory is None:
    return None
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


@functools.lru_cache
def flops_per_image(case: Case) -> float:
  """Of the networks in a training step, as the top of this file says."""
  config = case.config.get_config()
  shared = {
    'encoder': config.network.encoder,
    'encoder_options': config.network.encoder_options,
    'head': config.network.head,
  }
  online = branches.online(**shared, with_predictor=True, num_classes=0)
  target = branches.target(**shared)
  side, channels = config.data.crop_size or 8, len(config.data.mean)
  images = jax.ShapeDtypeStruct((4, side, side, channels), jnp.float32)
  online_flops, target_flops = (
    _forward_flops(network, images) / images.shape[0] for network in (online, target)
  )
  return 2 * (3 * online_flops + target_flops)


def _forward_flops(
  network: hk.TransformedWithState, images: jax.ShapeDtypeStruct
) -> float:
  init = lambda rng, images: network.init(rng, images, True)
  params, state = jax.eval_shape(init, jax.random.key(0), images)
  forward = jax.jit(
    lambda params, state, images: network.apply(params, state, None, images, True)
  )
  return forward.lower(params, state, images).cost_analysis()['flops']


def utilisation(
  flops_per_second: float, precision: str, device_kind: str
) -> float | None:
  """Share of a device's peak, or None where that is not known."""
  if device_kind not in PEAK_TFLOPS:
    return None
  peak = PEAK_TFLOPS[device_kind][precision == 'float32']
  return flops_per_second / (1e12 * peak)


def measure(
  cases: tuple[str, ...],
  losses: tuple[str, ...],
  precisions: tuple[str, ...],
  *,
  seconds: float,
  batch_size: int = 0,
  num_microbatches: int = 1,
  with_torch: bool = False,
) -> dict:
  """Measures every combination.

  Args:
    cases: names in `CASES`.
    losses: names; empty: all, but on a CPU those of the case.
    precisions: names.
    seconds: how long, for each.
    batch_size: images per device; 0: those of the cases.
    num_microbatches: of a device's batch.
    with_torch: whether PyTorch is measured beside.
  """
  device = parallel.devices()[0]
  settings = {'batch_size': batch_size, 'num_microbatches': num_microbatches}
  rows, comparison = [], []
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    for name in cases:
      case = CASES[name]
      possible = case.cpu_losses if device.platform == 'cpu' else LOSSES
      for precision in precisions:
        for loss in losses or possible:
          config = config_of(case, folder, loss=loss, precision=precision, **settings)
          row = measure_step(config, seconds)
          rows.append(_row(name, config, row, device.device_kind))
          print(table([rows[-1]], header=len(rows) == 1), flush=True)
        if with_torch:
          config = config_of(
            case, folder, loss='byol', precision=precision, batch_size=batch_size
          )
          comparison += compare_with_torch(name, config, seconds)
          print(comparison_table(comparison[-2:]), flush=True)
  return {
    'benchmark': 'step',
    'rows': rows,
    'comparison': comparison,
    'device': device.device_kind,
    'devices': len(parallel.devices()),
    'cores': os.cpu_count(),
    'versions': {'jax': jax.__version__},
  }


def _row(
  name: str, config: ml_collections.ConfigDict, measured: dict, device_kind: str
) -> dict:
  training, flops = config.training, flops_per_image(CASES[name])
  per_device = measured['images_per_second'] / len(parallel.devices())
  return {
    'case': name,
    'loss': config.loss.name,
    'precision': training.precision,
    'batch_size': training.batch_size,
    'num_microbatches': training.num_microbatches,
    **measured,
    'flops_per_image': flops,
    'utilisation': utilisation(per_device * flops, training.precision, device_kind),
  }


def compare_with_torch(
  name: str, config: ml_collections.ConfigDict, seconds: float
) -> list[dict]:
  """The same step in JAX and PyTorch: BYOL, no augmentation but the crop, and SGD."""
  from benchmarks import step_torch  # PyTorch is no dependency of the project.

  config.augment.views = ('none', 'none')
  config.optimizer.name = 'sgd'
  config.optimizer.base_learning_rate = 1e-3
  ours = measure_step(config, seconds)
  theirs = step_torch.measure_step(config, seconds, WARM_UP_STEPS)
  shared = {
    'case': name,
    'precision': config.training.precision,
    'batch_size': config.training.batch_size,
  }
  return [{'in': 'jax', **shared, **ours}, {'in': 'torch', **shared, **theirs}]


def table(rows: list[dict], header: bool = True) -> str:
  """Measurements as lines of text."""
  columns = (
    ('case', 14),
    ('loss', 14),
    ('precision', 11),
    ('batch', 7),
    ('images/s', 10),
    ('data wait', 11),
    ('compile s', 11),
    ('MiB', 9),
    ('GFLOP', 9),
    ('MFU', 7),
  )
  lines = [''.join(f'{name:>{width}}' for name, width in columns)] if header else []
  for row in rows:
    memory, share = row['device_bytes'], row['utilisation']
    cells = (
      row['case'],
      row['loss'],
      row['precision'],
      str(row['batch_size']),
      f'{row["images_per_second"]:.1f}',
      f'{row["data_wait_share"]:.0%}',
      f'{row["compile_s"]:.1f}',
      '' if memory is None else f'{memory / 2**20:.0f}',
      f'{row["flops_per_image"] / 1e9:.3g}',
      '' if share is None else f'{share:.0%}',
    )
    pairs = zip(cells, columns, strict=True)
    lines.append(''.join(f'{cell:>{width}}' for cell, (_, width) in pairs))
  return '\n'.join(lines)


def comparison_table(rows: list[dict]) -> str:
  """The same step in JAX and in PyTorch, as lines of text."""
  return '\n'.join(
    f'same step in {row["in"]:>5}: {row["case"]}, {row["precision"]}, batch '
    f'{row["batch_size"]}: {row["images_per_second"]:.1f} images/s, '
    f'compilation {row["compile_s"]:.1f} s'
    + ('' if row.get('is_compiled', True) else ' (torch.compile failed: not compiled)')
    for row in rows
  )


_CASES = flags.DEFINE_list('cases', list(CASES), f'Of {", ".join(CASES)}.')
_LOSSES = flags.DEFINE_list(
  'losses', [], 'Names of losses; by default all, but on a CPU one, and all of digits.'
)
_PRECISIONS = flags.DEFINE_list('precisions', list(PRECISIONS), 'Names of precisions.')
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 0, 'Images per device; 0: by the case, fewer on a CPU.', lower_bound=0
)
_NUM_MICROBATCHES = flags.DEFINE_integer(
  'num_microbatches', 1, "Of a device's batch.", lower_bound=1
)
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'How long each is measured.')
_TORCH = flags.DEFINE_bool('torch', True, 'Whether PyTorch is measured, if it can be.')


def main(argv: list[str]) -> None:
  """Measures what the flags say."""
  del argv
  for name in _CASES.value:
    if name not in CASES:
      raise app.UsageError(f'unknown case {name!r}; use some of {", ".join(CASES)}')
  measured = measure(
    tuple(_CASES.value),
    tuple(_LOSSES.value),
    tuple(_PRECISIONS.value),
    seconds=_SECONDS.value,
    batch_size=_BATCH_SIZE.value,
    num_microbatches=_NUM_MICROBATCHES.value,
    with_torch=_TORCH.value
    and len(parallel.devices()) == 1
    and bool(importlib.util.find_spec('torch')),
  )
  print(json.dumps(measured))


if __name__ == '__main__':
  app.run(main)
