"""The training step in JAX and in PyTorch, in turns, on this machine.

`python -m benchmarks.versus --cases=digits,resnet18_32` starts a process for each, with
the same networks, batch, images, loss (BYOL's) and optimiser (SGD), without a loader,
and lets them compute in turns: what else the machine does is shared fairly. Prints
images per second, median (range) over the turns, and the ratio of the medians, in
float32. PyTorch uses channels_last and, where that works, torch.compile.
"""

import contextlib
import pathlib
import statistics
import tempfile

from absl import app, flags

from benchmarks import step, step_process

# Of the flags of `benchmarks.step`, --cases, --seconds and --batch_size count too.
_TURNS = flags.DEFINE_integer('turns', 5, 'How many each has.')

FRAMEWORKS = ('jax', 'torch')
_COMPILE_S = 600


def compare(
  case: str, *, batch_size: int, turns: int, seconds: float, folder: pathlib.Path
) -> dict[str, list[float]]:
  """Images per second of each framework in each turn.

  Raises:
    StepError: one of them has failed.
  """
  step.write_images(step.CASES[case], folder)
  with contextlib.ExitStack() as stack:
    processes = {}
    for framework in FRAMEWORKS:
      settings = step_process.Settings(
        case=case,
        method='byol',
        batch_size=batch_size,
        precision='float32',
        framework=framework,
        is_plain=True,
        folder=str(folder),
      )
      process = step_process.StepProcess(settings, folder / f'{framework}.log')
      processes[framework] = stack.enter_context(process)
      process.reply(_COMPILE_S)  # One after the other: each compiles on all cores.
    speeds = {framework: [] for framework in FRAMEWORKS}
    for _ in range(turns):
      for framework, process in processes.items():
        found = process.run(seconds, on_device=True, timeout=_COMPILE_S)
        speeds[framework].append(found['images_per_second'])
    return speeds


def row(case: str, speeds: dict[str, list[float]]) -> str:
  """A row of the table, in Markdown."""
  medians = {name: statistics.median(found) for name, found in speeds.items()}
  cells = [
    f'{medians[name]:.4g} ({min(found):.4g} to {max(found):.4g})'
    for name, found in speeds.items()
  ]
  ratio = medians['jax'] / medians['torch']
  return f'| `{case}` | {" | ".join(cells)} | {ratio:.2f} |'


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  print('| case | JAX, images/s | PyTorch, images/s | ratio |\n|---|---|---|---|')
  for case in flags.FLAGS.cases:
    with tempfile.TemporaryDirectory() as folder:
      speeds = compare(
        case,
        batch_size=flags.FLAGS.batch_size,
        turns=_TURNS.value,
        seconds=flags.FLAGS.seconds,
        folder=pathlib.Path(folder),
      )
    print(row(case, speeds), flush=True)


if __name__ == '__main__':
  app.run(main)
