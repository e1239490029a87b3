"""Memory and work of the training step of every full-size preset, by XLA's analysis.

Run `python -m benchmarks.memory --results_dir=docs/results`; flags choose presets.
Steps are compiled for one device from shapes alone: no data set is read, no weight is
made and nothing is computed. It takes a few minutes for each preset, on a CPU.

The memory of a step of B images is F + B·a; in m > 1 microbatches F + B·p + (B/m)·q.
These four follow from four small batches; `_PAGE` says what they are.
"""

import importlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import app, flags

from benchmarks import full_size, step
from sslhsic import atomic, parallel
from sslhsic.tables import printed

# Of an H100, an estimate; `_PAGE` derives it.
TFLOPS = {'float32': 66, 'bfloat16': 132}

_CARD_BYTES = 22 * 2**30  # Of 24 GB.

PROGRAMS = {
  'pretrain': 'Pretrain',
  'linear_eval': 'LinearEval',
  'finetune': 'FineTune',
  'segmentation': 'Segmentation',
  'depth': 'Depth',
  'detection': 'Detection',
}


class Case(NamedTuple):
  """A preset of full size.

  Attributes:
    config: its configuration.
    part: images of a microbatch in the compiled programs; also twice as many.
    num_examples: images that are trained on, where the number of steps follows them.
  """

  config: ml_collections.ConfigDict
  part: int
  num_examples: int


# Images of a microbatch, and images that are trained on.
CASES = {
  'pretrain/imagenet': (8, 1_281_167),
  'linear_eval/imagenet': (8, 1_281_167),
  'finetune/imagenet_1pct': (8, 12_811),
  'finetune/imagenet_10pct': (8, 128_116),
  'finetune/imagenet_100pct': (8, 1_271_158),
  'segmentation/voc': (1, 0),
  'depth/nyu': (2, 0),
  'detection/voc_byol': (1, 0),
  'detection/voc_moco': (1, 0),
  'detection/coco_detectron2': (1, 0),
  'detection/coco_torchvision': (1, 0),
}


def case(name: str) -> Case:
  """The preset PROGRAM/FILE."""
  config = importlib.import_module(f'configs.{name.replace("/", ".")}').get_config()
  config.init_from = 'random'
  return Case(config, *CASES[name])


def measure(name: str, of: Case) -> dict[str, Any]:
  """A row of the table.

  Args:
    name: PROGRAM/FILE.
    of: the preset.
  """
  training, part = of.config.training, of.part
  batch_size = training.batch_size
  with full_size.shapes_only(of.num_examples or full_size.NUM_EXAMPLES):
    num_steps = _create(name, of.config, batch_size, 1).num_steps
    flops = _lower(name, of.config, 2 * part, 1).cost_analysis()['flops']
    whole, small, wide, deep = (
      step.device_bytes(_lower(name, of.config, images, count).compile())
      for images, count in ((4 * part, 1), (2 * part, 2), (4 * part, 2), (4 * part, 4))
    )
  # F + 2b·p + b·q, F + 4b·p + 2b·q and F + 4b·p + b·q, with b images in a part.
  in_part = (wide - deep) / part
  kept = (deep - small) / (2 * part)
  fixed = small - part * (2 * kept + in_part)
  row = {
    'name': name,
    'batch_size': batch_size,
    'num_steps': num_steps,
    'fixed_bytes': fixed,
    'alone_bytes': (whole - fixed) / (4 * part),
    'kept_bytes': kept,
    'in_part_bytes': in_part,
    'flops': flops / (2 * part) * batch_size,
    'precisions': sorted(TFLOPS) if 'precision' in training else ['float32'],
  }
  return row | {'num_microbatches': fitting(row)}


def step_bytes(row: dict[str, Any], num_microbatches: int) -> float:
  """Memory of a step of the whole batch on one device."""
  of_image = row['kept_bytes'] + row['in_part_bytes'] / num_microbatches
  if num_microbatches == 1:
    of_image = row['alone_bytes']
  return row['fixed_bytes'] + row['batch_size'] * of_image


def fitting(row: dict[str, Any], num_bytes: int = _CARD_BYTES) -> int | None:
  """Smallest number of microbatches with which the batch fits, or None."""
  batch_size = row['batch_size']
  counts = (m for m in range(1, batch_size + 1) if batch_size % m == 0)
  return next((m for m in counts if step_bytes(row, m) <= num_bytes), None)


def hours(row: dict[str, Any], precision: str) -> float:
  """Of all steps of a preset on one H100."""
  return row['num_steps'] * row['flops'] / (TFLOPS[precision] * 1e12) / 3600


def _create(name: str, config: ml_collections.ConfigDict, batch_size: int, count: int):
  """The experiment of a configuration, with another batch."""
  config = config.copy_and_resolve_references()
  config.training.update(batch_size=batch_size, num_microbatches=count)
  config.evaluation.batch_size = batch_size
  program = name.partition('/')[0]
  module = importlib.import_module(f'experiments.{program}')
  return getattr(module, PROGRAMS[program])('train', jax.random.key(0), config)


def _lower(
  name: str, config: ml_collections.ConfigDict, batch_size: int, count: int
) -> jax.stages.Lowered:
  """The training step."""
  experiment = _create(name, config, batch_size, count)
  experiment.step(0, np.asarray(jax.random.key_data(jax.random.key(0))))
  # What was mapped and called last.
  return full_size.Traced.last.lower()


def table(rows: list[dict[str, Any]]) -> str:
  """The rows as Markdown."""
  mib = lambda value: f'{value / 2**20:,.0f}'
  titles = ['preset', 'batch', 'fixed, MiB', 'alone, MiB', 'kept, MiB', 'in part, MiB']
  titles += ['one part, GiB', '24 GB', 'TFLOP', 'steps', 'hours']
  cells = []
  for row in rows:
    times = [f'{hours(row, x):,.1f}' for x in reversed(row['precisions'])]
    parts = row['num_microbatches']
    cells.append(
      [
        f'`{row["name"]}`',
        f'{row["batch_size"]:,}',
        mib(row['fixed_bytes']),
        mib(row['alone_bytes']),
        f'{row["kept_bytes"] / 2**20:.1f}',
        mib(row['in_part_bytes']),
        f'{step_bytes(row, 1) / 2**30:,.0f}',
        'does not' if parts is None else str(parts),
        f'{row["flops"] / 1e12:,.3g}',
        f'{row["num_steps"]:,}',
        ' / '.join(times),
      ]
    )
  return printed.markdown(titles, cells)


def write(rows: list[dict[str, Any]], directory: pathlib.Path) -> None:
  """Writes memory.json and memory.md; rows of other presets stay as they were."""
  directory.mkdir(parents=True, exist_ok=True)
  file = directory / 'memory.json'
  before = json.loads(file.read_text(encoding='utf-8')) if file.exists() else []
  by_name = {row['name']: row for row in [*before, *rows]}
  merged = [by_name[name] for name in CASES if name in by_name]
  atomic.write(file, json.dumps(merged, indent=1) + '\n')
  page = _PAGE.format(table=table(merged), jax=jax.__version__)
  atomic.write(directory / 'memory.md', page)


_PAGE = """# Memory, work and hours of the training steps

How many microbatches a published batch needs on a card of 24 GB, and how long a run
takes, for every full-size preset, in float32 on one device. `python -m
benchmarks.memory --results_dir=docs/results`, jax {jax}.

{table}

A step of B images needs fixed + B·alone, in N > 1 microbatches fixed + B·kept +
(B/N)·(in part):

- **fixed**: parameters, momenta, averages, gradients.
- **alone**: of an image, where there is one part.
- **kept**: of an image of the batch in parts: the image itself, augmented views,
  outputs.
- **in part**: of an image of a part: activations. Pre-training has less than alone, as
  its views go through the network one after the other once their gradients are known.
- **24 GB**: smallest `training.num_microbatches` with which the batch fits, with 2 GiB
  to spare.
- **TFLOP**: of a step without microbatches. Where the loss is no mean (pre-training,
  depth, and in part detection) N > 1 costs a second forward pass, about a third more.
- **hours**: of all steps of the preset on one H100, in float32 / in bfloat16 where the
  program has it (`training.precision`). An H200 did 164 TFLOP/s with the pre-training
  of a ResNet-50 in bfloat16, 17 % of its peak and 55 % of the time in kernels that wait
  for memory ([measured](accelerator-h200.md)). An H100 computes as fast with 3.35 TB/s
  of memory instead of 4.8: 164 / (0.45 + 0.55·4.8/3.35) = 132 TFLOP/s, 13 % of its
  peak; float32 half of that. Reading images and evaluations come on top. No preset was
  run to its end.

Memory and TFLOP are XLA's analysis of programs for the CPU, from shapes alone. Another
device fuses more and pads other axes. bfloat16 halves activations: the H200 needed 80
MiB for an image of pre-training, alone.
"""


_PRESETS = flags.DEFINE_list('presets', list(CASES), f'Of {", ".join(CASES)}.')
_RESULTS_DIR = flags.DEFINE_string('results_dir', '', 'Where memory.json and .md go.')


def main(argv: list[str]) -> None:
  """Measures what the flags say."""
  del argv
  for name in _PRESETS.value:
    if name not in CASES:
      raise app.UsageError(f'unknown preset {name!r}; use some of {", ".join(CASES)}')
  if len(parallel.devices()) > 1:
    raise app.UsageError('more than one device; set JAX_PLATFORMS=cpu')
  rows = []
  for name in _PRESETS.value:
    rows.append(measure(name, case(name)))
    print(table(rows[-1:]), flush=True)
    if _RESULTS_DIR.value:
      write(rows, pathlib.Path(_RESULTS_DIR.value))
  print(json.dumps(rows))


if __name__ == '__main__':
  app.run(main)
