"""Embeds a data set with a pre-trained encoder, on all devices, into one file.

python -m experiments.embed --init_from=runs/digits --data=digits --split=test \
  --out=embeddings.npz

The file has the arrays `embeddings` [n, c], `labels` [n] (-1: none; [n, C] if an image
may be of several classes) and `names` [n], the paths of the images, or what a data set
without files calls them.
"""

from absl import flags

from sslhsic import parallel
from sslhsic.data import images, sources
from sslhsic.evaluation import embed
from sslhsic.runs import command_line, paths, processes
from sslhsic.weights import pretrained

_INIT_FROM = flags.DEFINE_string(
  'init_from',
  None,
  'A pre-training run, DIR/checkpoints/STEP, a finished fine-tuning, an export, or a '
  'safetensors file.',
)
_DATA = flags.DEFINE_string('data', None, 'A data set, as in config.data.source.')
_SPLIT = flags.DEFINE_string('split', 'train', 'Which part of it.')
_OUT = flags.DEFINE_string('out', 'embeddings.npz', 'The file to write.')
_MAX_BAD_FRACTION = flags.DEFINE_float(
  'max_bad_fraction', 0.001, 'Share of the images that may be corrupt; left out.'
)
_MAX_PIXELS = flags.DEFINE_integer(
  'max_pixels', images.MAX_PIXELS, 'Of an image; larger ones count as corrupt.'
)

_IMAGES_PER_DEVICE = 64  # Little memory for a forward pass, and enough work.


def main(argv: list[str]) -> None:
  """Writes the file."""
  command_line.no_arguments(argv)
  others = processes.OtherProcessError
  with command_line.one_line_errors(ValueError, OSError, others):
    if not _INIT_FROM.value or not _DATA.value:
      raise ValueError('give --init_from=RUN and --data=SOURCE')
    command_line.join_processes()
    # Before the work: a file that cannot be written fails at once.
    out = processes.first_does(lambda: paths.output_file(_OUT.value, '--out'))
    source = sources.create(_DATA.value, _SPLIT.value)
    settings = pretrained.settings(_INIT_FROM.value)
    print(settings.description)
    found = embed.embed(
      settings,
      source,
      init_from=_INIT_FROM.value,
      batch_size=_IMAGES_PER_DEVICE * len(parallel.devices()),
      max_bad_fraction=_MAX_BAD_FRACTION.value,
      max_pixels=_MAX_PIXELS.value,
    )
    processes.first_does(lambda: embed.write(out, found))
    count, size = found.embeddings.shape
    print(f'{_OUT.value} has {count:,} embeddings of {size} numbers')


if __name__ == '__main__':
  command_line.run(main)
