"""Embeds a data set with a pre-trained encoder, on all devices, into one file.

python -m experiments.embed --init_from=runs/digits --data=digits --split=test \
  --out=embeddings.npz

The file has the arrays `embeddings` [n, c], `labels` [n] (-1: none; [n, C] if an image
may be of several classes) and `names` [n], what the data set calls the images.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from experiments import shared
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.evaluation import pretrained
from sslhsic.runs import command_line, paths, processes, writers

_INIT_FROM = flags.DEFINE_string(
  'init_from',
  None,
  'A pre-training run, DIR/checkpoints/STEP, an export, or a safetensors file.',
)
_DATA = flags.DEFINE_string('data', None, 'A data set, as in config.data.source.')
_SPLIT = flags.DEFINE_string('split', 'train', 'Which part of it.')
_OUT = flags.DEFINE_string('out', 'embeddings.npz', 'The file to write.')
_MAX_BAD_FRACTION = flags.DEFINE_float(
  'max_bad_fraction', 0.001, 'Share of the images that may be corrupt; left out.'
)

_IMAGES_PER_DEVICE = 64  # Little memory for a forward pass, and enough work.


class Embedded(NamedTuple):
  """Embeddings [n, c], labels and names [n] of a data set."""

  embeddings: np.ndarray
  labels: np.ndarray
  names: np.ndarray


def main(argv: list[str]) -> None:
  """Writes the file."""
  command_line.no_arguments(argv)
  others = processes.OtherProcessError
  with command_line.one_line_errors(ValueError, OSError, others):
    if not _INIT_FROM.value or not _DATA.value:
      raise ValueError('give --init_from=RUN and --data=SOURCE')
    command_line.join_processes()
    out = processes.first_does(lambda: paths.output_file(_OUT.value, '--out'))
    found = embed(
      _INIT_FROM.value,
      sources.create(_DATA.value, _SPLIT.value),
      batch_size=_IMAGES_PER_DEVICE * len(parallel.devices()),
      max_bad_fraction=_MAX_BAD_FRACTION.value,
    )
    processes.first_does(lambda: write(out, found))
    count, size = found.embeddings.shape
    print(f'{_OUT.value} has {count:,} embeddings of {size} numbers')


def embed(
  init_from: str, source: sources.Source, *, batch_size: int, max_bad_fraction: float
) -> Embedded:
  """Embeds every example of a source; corrupt images are left out.

  Args:
    init_from: where the encoder comes from, see `pretrained.settings`.
    source: the examples.
    batch_size: over all devices.
    max_bad_fraction: share of the images that may be corrupt.

  Raises:
    ValueError: there is no such encoder, or it does not fit the images.
  """
  settings = pretrained.settings(init_from)
  print(settings.description)
  config = shared.encoder_config(
    settings,
    init_from=init_from,
    batch_size=batch_size,
    max_bad_fraction=max_bad_fraction,
  )
  encoder = shared.frozen_encoder(config, source)
  split, rows = encoder.embed_with_rows(source)
  names = np.array([source.name(row) for row in rows])
  return Embedded(split.features, split.labels, names)


def write(path: pathlib.Path, found: Embedded) -> None:
  """Writes a NumPy archive, whole or not at all."""
  with writers.open_atomically(path) as file:
    np.savez(file, **found._asdict())


if __name__ == '__main__':
  command_line.run(main)
