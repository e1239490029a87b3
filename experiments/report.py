"""Makes one page of runs, to be looked at in a browser: a file that needs no network.

python -m experiments.report --output=report.html runs/digits runs/digits-byol

A directory may also be one with runs below it, as `experiments.reproduce` makes it.
"""

from absl import flags

from sslhsic import atomic
from sslhsic.report import build
from sslhsic.runs import command_line, paths

_OUTPUT = flags.DEFINE_string('output', 'report.html', 'The file to write.')
_ENCODERS = flags.DEFINE_integer(
  'encoders', 4, 'How many pre-trained encoders to look into, the first by name.'
)


def main(argv: list[str]) -> None:
  """Writes the page."""
  with command_line.one_line_errors(ValueError, OSError):
    directories = [paths.parse(argument, 'a run') for argument in argv[1:]]
    if not directories:
      raise ValueError('no run: give working directories, as in runs/digits')
    output = paths.output_file(_OUTPUT.value, '--output')
    atomic.write(output, build.build(directories, _ENCODERS.value))
    print(f'the report is {output}')


if __name__ == '__main__':
  command_line.run(main)
