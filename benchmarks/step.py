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
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags

from benchmarks import loader as loader_benchmark
from configs.pretrain import cifar10, digits, imagenet, imagenette
from experiments import pretrain
from sslhsic import losses, parallel
from sslhsic.data import loader
from sslhsic.evaluation import encoder
from sslhsic.pretraining import model
from sslhsic.runs import data_wait

LOSSES = tuple(losses.LOSSES)
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
    batch_size: images per device; 0: the case's.
    loss, precision, num_microbatches: settings of the configuration.
  """
  config = case.config.get_config()
  if case.image:
    config.data.source = f'folder:{write_images(case, folder)}'
    config.data.train_split = 'train'
    config.evaluation.train_split = config.evaluation.test_split = 'train'
    config.data.allow_overlap = True  # Nothing is evaluated.
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


def write_images(
  case: Case, folder: pathlib.Path, num_classes: int = 10, count: int = 16
) -> pathlib.Path | None:
  """Writes a folder with JPEG files in folders of classes, if there is none yet.

  Returns:
    The folder; None for a case that has images of its own.
  """
  if not case.image:
    return None
  root = folder / 'x'.join(map(str, case.image))
  for number in range(num_classes):
    of_class = root / str(number)
    if not of_class.exists():
      of_class.mkdir(parents=True)
      loader_benchmark.write_jpegs(of_class, count, case.image)
  return root


class _Input:
  """The input of an experiment, which can be replaced by one batch on the devices.

  Attributes:
    on_device: whether every batch is the same random one, which is there already. It is
      until it is set to false: only then the loader starts.
  """

  def __init__(
    self, make_input: Callable[[], loader.DeviceIterator], shape, batch_size
  ):
    self._make_input, self._input = make_input, None
    self._shape = (batch_size, *shape)
    self.on_device = True

  def __next__(self) -> chex.ArrayTree:
    if self.on_device:
      return self._resident
    if self._input is None:
      self._input = self._make_input()
    return next(self._input)

  @functools.cached_property
  def _resident(self) -> chex.ArrayTree:
    rng = np.random.default_rng(0)
    view = lambda: rng.integers(0, 256, self._shape, np.uint8)
    return parallel.shard(
      {
        'view1': view(),
        'view2': view(),
        'label': np.zeros(self._shape[0], np.int32),
        'index': np.arange(self._shape[0], dtype=np.uint32),
      }
    )

  @property
  def wait_s(self) -> float:
    return self._input.wait_s if self._input else 0.0

  def close(self) -> None:
    if self._input:
      self._input.close()


class Experiment(pretrain.Pretrain):
  """Pre-training whose input can be left out, and which reads few images."""

  fills_a_batch = False

  def __init__(self, mode: str, init_rng: chex.PRNGKey, config):
    """As of `Pretrain`; the views have the size of images in evaluations."""
    self._crop = encoder.crop(config.data.crop_size)
    super().__init__(mode, init_rng, config)

  def make_input(self) -> _Input:
    """The input, or a batch in its place."""
    shape = loader.image_shape(self.source, self._crop)
    return _Input(super().make_input, shape, self.batch_size)


class Subject:
  """A training step to be measured; the loader starts when it is first needed.

  Args:
    config: the configuration.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    self._experiment = Experiment('train', jax.random.key(0), config)
    self._waited = data_wait.DataWait(self._experiment)
    self._batch_size = config.training.batch_size
    self._rng = np.asarray(jax.random.key_data(jax.random.key(1)))
    self._steps = 0

  def compile(self) -> dict:
    """Compiles the step; returns 'compile_s' and 'device_bytes'."""
    start = time.perf_counter()
    compiled = self._experiment.compile(self._rng)
    return {
      'compile_s': time.perf_counter() - start,
      'device_bytes': device_bytes(compiled),
    }

  def warm_up(self) -> None:
    """Takes the first steps."""
    for _ in range(WARM_UP_STEPS):
      jax.block_until_ready(self._step())

  def run(self, seconds: float, on_device: bool = False) -> dict:
    """Takes steps for some time, at least one.

    Args:
      seconds: how long.
      on_device: whether all of them get one batch that is on the devices already.

    Returns:
      images_per_second, data_wait_share, peak_bytes (allocated on a device so far, or
      None where that is not known).
    """
    self._experiment.input.on_device = on_device
    for _ in range(1 if on_device else 3):  # Not measured: workers may have to start.
      jax.block_until_ready(self._step())
    start, waited = time.perf_counter(), self._waited.seconds
    steps, before = 0, None
    while not steps or time.perf_counter() - start < seconds:
      scalars = self._step()
      jax.block_until_ready(before)  # One step ahead, as the runner is.
      before, steps = scalars, steps + 1
    jax.block_until_ready(before)
    elapsed = time.perf_counter() - start
    memory = parallel.devices()[0].memory_stats() or {}
    return {
      'images_per_second': steps * self._batch_size / elapsed,
      'data_wait_share': min((self._waited.seconds - waited) / elapsed, 1.0),
      'peak_bytes': memory.get('peak_bytes_in_use'),
    }

  def close(self) -> None:
    """Stops the loader."""
    self._waited.close()
    self._experiment.input.close()

  def _step(self) -> dict[str, chex.Array]:
    self._steps += 1
    return self._waited.step(self._steps, self._rng)


def measure_step(config: ml_collections.ConfigDict, seconds: float) -> dict:
  """Takes steps for some time, after those that compile and warm up.

  Returns:
    What `Subject.compile` and `Subject.run` return.
  """
  subject = Subject(config)
  compiled = subject.compile()
  subject.warm_up()
  measured = subject.run(seconds)
  subject.close()
  return measured | compiled


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
  networks = model.create(
    encoder=config.network.encoder,
    encoder_options=config.network.encoder_options,
    head=config.network.head,
    with_target=True,
    num_classes=0,
  )
  side, channels = config.data.crop_size or 8, len(config.data.mean)
  images = jax.ShapeDtypeStruct((4, side, side, channels), jnp.float32)
  online_flops, target_flops = (
    _forward_flops(network, images) / images.shape[0]
    for network in (networks.online, networks.target)
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


def make_plain(config: ml_collections.ConfigDict) -> None:
  """No augmentation but the crop, and SGD: what the step in PyTorch has."""
  config.augment.views = ({'policy': 'none'},) * 2
  config.optimizer.name = 'sgd'
  config.optimizer.base_learning_rate = 1e-3


def compare_with_torch(
  name: str, config: ml_collections.ConfigDict, seconds: float
) -> list[dict]:
  """The same step in JAX and PyTorch: BYOL, no augmentation but the crop, and SGD."""
  from benchmarks import step_torch  # PyTorch is no dependency of the project.

  make_plain(config)
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
