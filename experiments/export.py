"""Writes a pre-trained encoder for other libraries, which load it offline.

python -m experiments.export --init_from=runs/digits --format=torchvision --out=DIR

Formats are those of `sslhsic.weights.export`; a model card says how to load them.
"""

import pathlib
import shlex
import sys

from absl import flags

from sslhsic.evaluation import pretrained
from sslhsic.runs import command_line, paths, workdir
from sslhsic.weights import card, export

_INIT_FROM = flags.DEFINE_string(
  'init_from', None, 'A pre-training run, or DIR/checkpoints/STEP.'
)
_FORMAT = flags.DEFINE_enum('format', 'torchvision', list(export.FORMATS), 'For whom.')
_OUT = flags.DEFINE_string('out', None, 'The directory to make.')
_WEIGHTS = flags.DEFINE_enum(
  'weights',
  'ema',
  ['ema', 'online'],
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
    evaluations = [paths.local(path, '--evaluation') for path in _EVALUATIONS.value]
    run = pretrained.read_run(_INIT_FROM.value)
    network = export.Network(
      run.averaged if _WEIGHTS.value == 'ema' else run.online,
      run.network_state,
      with_projector=_PROJECTOR.value,
    )
    facts = facts_of(run, _WEIGHTS.value, network, evaluations)
    export.write(out, _FORMAT.value, network, run.settings, facts)
    print(f'{run.settings.description}: {_FORMAT.value} in {out}, see {out}/README.md')


def facts_of(
  run: pretrained.Run,
  weights: str,
  network: export.Network,
  evaluations: list[pathlib.Path],
) -> card.Facts:
  """What the model card tells.

  Args:
    run: the pre-training.
    weights: 'ema' or 'online'.
    network: these weights.
    evaluations: working directories.

  Raises:
    ValueError: an evaluation is not done, or is of other weights.
  """
  results = workdir.read_json(run.workdir / 'results.json')
  words = {
    'ema': f'weights averaged over training (decay {run.config["weight_ema_decay"]:g})',
    'online': 'weights of the last step',
  }
  is_evaluated = weights == 'ema' and results.get('steps') == run.step
  fingerprint = pretrained.fingerprint(network.params, network.network_state)
  return card.Facts(
    weights=words[weights],
    steps=run.step,
    config=run.config,
    results=results,
    evaluations=[results] * is_evaluated
    + [_evaluation(path, fingerprint) for path in evaluations],
    command=shlex.join(['python', '-m', 'experiments.export', *sys.argv[1:]]),
  )


def _evaluation(path: pathlib.Path, fingerprint: str) -> dict:
  results = workdir.read_json(path / 'results.json')
  if results.get('encoder_fingerprint') != fingerprint:
    raise ValueError(
      f'{path} has evaluated {results.get("encoder", "nothing so far")}, which has '
      'other weights than this export; give evaluations of the same checkpoint, of '
      'which the weights are ema'
    )
  return results


if __name__ == '__main__':
  command_line.run(main)
