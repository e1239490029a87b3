"""The model card of an export: what it is, how it was made, how to load it."""

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sslhsic.weights import families
from sslhsic.weights import settings as settings_lib


class Facts(NamedTuple):
  """What a model card tells besides the network.

  Attributes:
    weights: which weights of the run these are, in words.
    steps: updates that the encoder has seen.
    config: of the pre-training, its config.json.
    results: of the pre-training, its results.json; empty if it is not done.
    evaluations: what was measured of these weights, as in results.json.
    command: what has made the export.
  """

  weights: str
  steps: int
  config: Mapping[str, Any]
  results: Mapping[str, Any]
  evaluations: Sequence[Mapping[str, Any]]
  command: str


def render(format_name: str, settings: settings_lib.Settings, facts: Facts) -> str:
  """The card, as the Markdown of a README with the header of Hugging Face's hub."""
  config = facts.config
  return '\n'.join(
    [
      *_header(format_name),
      f'# {settings.encoder}, pre-trained with {config["loss"]["name"]}',
      '',
      f'The encoder of a network that was pre-trained without labels on '
      f'{config["data"]["source"]}: {facts.weights}, after {facts.steps:,} steps.',
      '',
      '## Use',
      '',
      *_usage(format_name, settings),
      '',
      '## Images',
      '',
      *_images(settings),
      '',
      '## Training',
      '',
      *_training(config),
      '',
      '## Evaluation',
      '',
      *_evaluation(facts),
      '',
      '## Origin',
      '',
      *_origin(facts),
      '',
    ]
  )


def _header(format_name: str) -> list[str]:
  library = {'timm': 'timm', 'huggingface': 'transformers'}.get(format_name)
  return [
    '---',
    *([f'library_name: {library}'] if library else []),
    'pipeline_tag: image-feature-extraction',
    'tags:',
    '- self-supervised',
    '---',
    '',
  ]


# How to load it


def _usage(format_name: str, settings: settings_lib.Settings) -> list[str]:
  if format_name == 'haiku':
    return _in_sslhsic()
  lines = families.of(settings.encoder).usage(format_name, settings)
  if lines:
    return _python(*lines)
  return [
    f'{format_name} has no such network; the tensors have the names and the layout '
    'that it would give them. This library loads them:',
    '',
    *_in_sslhsic(),
  ]


def _in_sslhsic() -> list[str]:
  return _python(
    'import sslhsic',
    '',
    "encoder = sslhsic.load('DIR')",
    "images = encoder.preprocess(['PICTURE.jpg'])  # [1, H, W, C]",
    'embeddings = encoder(images)  # [1, d]',
  )


def _python(*lines: str) -> list[str]:
  return ['```python', *lines, '```', '', 'DIR is the directory of this file.']


# What it is


def _images(settings: settings_lib.Settings) -> list[str]:
  crop = 'Whole images'
  if settings.crop_size:
    size = settings.crop_size
    share = {'centre': f'{size}/{size + 32}', 'shorter_side': 'all'}
    crop = (
      f'The central square, {share[settings.evaluation_crop]} of the shorter side, '
      f'resized to {size} pixels {_INTERPOLATIONS[settings.interpolation]}'
    )
  lines = [
    f'{crop}; values in [0, 1], of which the mean {settings.mean} is subtracted, '
    f'divided by {settings.std}.'
  ]
  if settings.crop_size and settings.interpolation == 'bicubic':
    lines += [
      '',
      'Image processors of other libraries smooth what they make smaller, which this '
      'encoder has not seen in its evaluation: expect other results with them. '
      '`sslhsic.load(DIR).preprocess` makes the images that it was evaluated on.',
    ]
  return lines


_INTERPOLATIONS = {
  'bicubic': "by cubic interpolation without smoothing (Keys' kernel, a = -0.5)",
  'bicubic_antialias': "by Pillow's bicubic interpolation, with smoothing",
}


def _training(config: Mapping[str, Any]) -> list[str]:
  data, loss, training = config['data'], config['loss'], config['training']
  optimizer = config['optimizer']
  chosen = optimizer['name']
  target = 'none'
  if config['target_network']:
    target = (
      f'decay {config["target_base_decay"]:g} at the start, '
      f'{config["target_decay_schedule"]}'
    )
  peak = optimizer['base_learning_rate'] * training['batch_size'] / 256
  rows = {
    'data': f'{data["source"]}, {data["train_split"]}',
    'views': ', '.join(view['policy'] for view in config['augment']['views']),
    'loss': f'{loss["name"]} {_listed(loss.get(loss["name"], {}))}',
    'target network': target,
    'projector': _listed(config['network']['head']),
    'optimizer': f'{chosen} {_listed(optimizer.get(chosen, {}))}, '
    f'weight decay {optimizer["weight_decay"]:g}',
    'learning rate': f'{peak:g} = {optimizer["base_learning_rate"]:g} · '
    f'{training["batch_size"]} / 256; {training["warmup_epochs"]:g} epochs of warm-up, '
    'then a cosine to 0',
    'length': f'{training["epochs"]:g} epochs in batches of {training["batch_size"]}',
    'precision': training['precision'],
    'seed': config['seed'],
  }
  return ['| | |', '|---|---|', *(f'| {name} | {x} |' for name, x in rows.items())]


def _listed(values: Mapping[str, Any]) -> str:
  return ', '.join(f'{name} {x}' for name, x in values.items() if x is not None)


def _evaluation(facts: Facts) -> list[str]:
  lines = []
  for results in facts.evaluations:
    for name, protocol in results.get('protocol', {}).items():
      value = results.get(name)
      if isinstance(value, int | float):
        lines.append(f'| {name} | {value:.4g} | {protocol} |')
  if not lines:
    return ['No result is known.']
  return ['| metric | value | protocol |', '|---|---|---|', *lines]


def _origin(facts: Facts) -> list[str]:
  results = facts.results
  if not results:
    return ['The pre-training has not been run to its end.', '', *_export(facts)]
  versions = _listed(results['versions'])
  return [
    f'Commit {results["git_commit"] or "unknown"} of sslhsic, on {results["device"]}, '
    f'with {versions}:',
    '',
    '```sh',
    _command(results['command']),
    '```',
    '',
    *_export(facts),
  ]


def _command(arguments: Sequence[str]) -> str:
  """What was typed, from the arguments that the program was given."""
  program = pathlib.PurePath(arguments[0])
  start = str(program)
  if program.suffix == '.py':
    start = f'python -m {program.parent.name}.{program.stem}'
  return ' '.join([start, *map(shlex.quote, arguments[1:])])


def _export(facts: Facts) -> list[str]:
  config = json.dumps(facts.config, indent=1)
  return [
    f'Exported by `{facts.command}`.',
    '',
    '<details><summary>Configuration of the pre-training</summary>',
    '',
    '```json',
    config,
    '```',
    '',
    '</details>',
  ]
