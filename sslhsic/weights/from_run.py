"""The export of a pre-training run: its weights, with what its model card tells."""

from collections.abc import Sequence
from typing import Any

from sslhsic import storage
from sslhsic.runs import workdir
from sslhsic.weights import card, export, pretrained
from sslhsic.weights import settings as settings_lib

WEIGHTS = ('ema', 'online')  # Averaged over training, or those of the last step.


def write(
  directory: storage.Path,
  format_name: str,
  *,
  init_from: str,
  weights: str,
  with_projector: bool,
  evaluations: Sequence[storage.Path],
  command: str,
) -> settings_lib.Settings:
  """Writes the encoder of a run as an export; see `export.write`.

  Args:
    directory: to be made.
    format_name: one of `export.FORMATS`.
    init_from: the run, or one of its checkpoints; see `pretrained.read_run`.
    weights: one of `WEIGHTS`.
    with_projector: whether the projector is exported too.
    evaluations: working directories of evaluations of these weights, for the card.
    command: what makes the export, for the card.

  Returns:
    The settings of the encoder.

  Raises:
    ValueError: as `pretrained.read_run` and `export.write`, or an evaluation is not
      done, or is of other weights.
  """
  run = pretrained.read_run(init_from)
  params = {'ema': run.averaged, 'online': run.online}[weights]
  network = export.Network(params, run.network_state, with_projector=with_projector)
  decay = run.config['weight_ema_decay']
  words = {
    'ema': f'weights averaged over training (decay {decay:g})',
    'online': 'weights of the last step',
  }
  facts = card.Facts(
    weights=words[weights],
    steps=run.step,
    config=run.config,
    results=workdir.read_json(run.workdir / 'results.json'),
    evaluations=_evaluations(run, weights, network, evaluations),
    command=command,
  )
  export.write(directory, format_name, network, run.settings, facts)
  return run.settings


def _evaluations(
  run: pretrained.Run,
  weights: str,
  network: export.Network,
  directories: Sequence[storage.Path],
) -> list[dict[str, Any]]:
  """What was measured of these weights: by the run at its end, and by others."""
  found = []
  results = workdir.read_json(run.workdir / 'results.json')
  # A run evaluates its averaged weights, after the last step.
  if weights == 'ema' and results.get('steps') == run.step:
    found.append(results)
  fingerprint = pretrained.fingerprint(network.params, network.network_state)
  for path in directories:
    results = workdir.read_json(path / 'results.json')
    if results.get('encoder_fingerprint') != fingerprint:
      raise ValueError(
        f'{path} has evaluated {results.get("encoder", "nothing so far")}, which has '
        'other weights than this export; give evaluations of the same checkpoint, of '
        'which the weights are ema'
      )
    found.append(results)
  return found
