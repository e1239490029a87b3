"""Writes a pre-trained encoder for other libraries, which load it offline.

python -m experiments.export --init_from=runs/digits --format=torchvision --out=DIR

Formats are those of `sslhsic.weights.export`; a model card says how to load them.
"""

import shlex
import sys

from absl import flags

from sslhsic.runs import command_line, paths
from sslhsic.weights import export, from_run

_INIT_FROM = flags.DEFINE_string(
  'init_from', None, 'A pre-training run, or DIR/checkpoints/STEP.'
)
_FORMAT = flags.DEFINE_enum('format', 'torchvision', list(export.FORMATS), 'For whom.')
_OUT = flags.DEFINE_string('out', None, 'The directory to make.')
_WEIGHTS = flags.DEFINE_enum(
  'weights',
  'ema',
  list(from_run.WEIGHTS),
  'Those averaged over training, as evaluations have them, or those of the last step.',
)
_PROJECTOR = flags.DEFINE_bool('projector', False, 'Writes the projector, too.')
_EVALUATIONS = flags.DEFINE_multi_string(
  'evaluation', [], 'A run that has evaluated it, for the model card; may be repeated.'
)


def main(argv: list[str]) -> None:
  """Writes the export."""
  command_line.no_arguments(argv)
  with command_line.one_line_errors(ValueError, OSError):
    if not _INIT_FROM.value or not _OUT.value:
      raise ValueError('give --init_from=RUN and --out=DIR')
    out = paths.output_directory(_OUT.value, '--out')
    settings = from_run.write(
      out,
      _FORMAT.value,
      init_from=_INIT_FROM.value,
      weights=_WEIGHTS.value,
      with_projector=_PROJECTOR.value,
      evaluations=[paths.parse(path, '--evaluation') for path in _EVALUATIONS.value],
      command=shlex.join(['python', '-m', 'experiments.export', *sys.argv[1:]]),
    )
    print(f'{settings.description}: {_FORMAT.value} in {out}, see {out}/README.md')


if __name__ == '__main__':
  command_line.run(main)
