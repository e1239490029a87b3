"""The evaluators of a configuration, each with its data."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_collections

from sslhsic import evaluators
from sslhsic.data import compared, loader, sources
from sslhsic.pretraining.extraction import Part
from sslhsic.weights import pretrained


class Request(NamedTuple):
  """Images that go through the network.

  Attributes:
    part: where they are from.
    augmented: number of images, and of augmented views of each; None: all, as they are.
    reference: another encoder in place of the network; see `Evaluator`.
  """

  part: Part
  augmented: tuple[int, int] | None = None
  reference: str = ''


class Measurement(NamedTuple):
  """An evaluator and its data.

  Attributes:
    evaluator: the evaluator.
    parts: its data, under 'test' and, if it needs one, 'train'.
    prefix: of its results in logs; empty where it has the name of its kind.
    num_classes: of the labels; 0 if it needs none.
  """

  evaluator: evaluators.Evaluator
  parts: dict[str, Part]
  prefix: str
  num_classes: int

  def requests(self) -> dict[str, Request]:
    """What it needs, by field of `evaluators.Inputs`."""
    found = {key: Request(self.parts[key]) for key in self.evaluator.splits}
    if self.evaluator.other_encoder:
      found['reference'] = Request(
        self.parts['test'], reference=self.evaluator.other_encoder
      )
    if self.evaluator.augmented:
      found['views'] = Request(self.parts['test'], self.evaluator.augmented)
    return found

  def protocol(self) -> dict[str, str]:
    """In words, by the name of each result in logs."""
    where = ''
    if self.evaluator.source is not None:
      splits = [f'{key} is {part.split}' for key, part in self.parts.items()]
      where = f'; {", ".join(splits)} of {self.evaluator.source}'
    return {
      self.prefix + result: sentence + where
      for result, sentence in self.evaluator.describe().items()
    }


Open = Callable[[Part], sources.Source]


def part_of(config: ml_collections.ConfigDict, key: str) -> Part:
  """The data of evaluations, unless an evaluator names its own: 'train' or 'test'."""
  return Part(config.data.source, config.evaluation[f'{key}_split'])


def create(
  config: ml_collections.ConfigDict, open_part: Open, num_trained_classes: int
) -> dict[str, Measurement | None]:
  """The measurements of a configuration, checked against their data.

  Args:
    config: the configuration of the pre-training.
    open_part: gives the examples of a part.
    num_trained_classes: classes of the online classifier; 0: there is none.

  Returns:
    By name, in the order of `config.evaluators.names`. None for one that is left out,
    because it needs labels and the data of the training have none.

  Raises:
    ValueError: an evaluator or one of its settings is unknown, or its data are not
      there, too few, without labels, or have other channels; names the field.
  """
  return {
    name: _measurement(config, name, open_part, num_trained_classes)
    for name in config.evaluators.names
  }


def labelled_part(part: Part, open_part: Open) -> Part:
  """The part itself, or only its images with a label if others have none."""
  labelled = part._replace(has_labels=True)
  # Where it is all of them, evaluators that need no labels can share its pass.
  is_all = len(open_part(labelled)) == len(open_part(part))
  return part if is_all else labelled


@contextlib.contextmanager
def errors_of(field: str) -> Iterator[None]:
  """Names a field of the configuration in ValueErrors."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{field}: {error}') from error


def _measurement(
  config: ml_collections.ConfigDict,
  name: str,
  open_part: Open,
  num_trained_classes: int,
) -> Measurement | None:
  field = f'config.evaluators.{name}'
  settings = dict(config.evaluators.get(name, {}))
  kind = settings.pop('kind', name)
  with errors_of(field):
    evaluator = evaluators.create(kind, **settings)

  # Open its data: splits of its own where it names any, else those of the run.
  parts, examples = {}, {}
  for key in ('train', 'test') if 'train' in evaluator.splits else ('test',):
    default = part_of(config, key)
    parts[key] = Part(
      evaluator.source or default.source,
      getattr(evaluator, f'{key}_split') or default.split,
    )
    is_own = parts[key] != default
    with errors_of(field if is_own else f'config.evaluation.{key}_split'):
      if evaluator.needs_labels:
        parts[key] = labelled_part(parts[key], open_part)
      examples[key] = open_part(parts[key])

  with errors_of(field):
    # Check it against the data; without labels in the training it is left out.
    num_classes = _num_classes(evaluator, examples, num_trained_classes)
    if num_classes is None:
      return None
    num_train, num_test = (len(examples.get(key, ())) for key in ('train', 'test'))
    evaluator.check_sizes(num_train, num_test)
    if evaluator.other_encoder not in ('', evaluators.INITIAL):
      settings = pretrained.settings(evaluator.other_encoder)
      _check_channels(examples['test'], len(settings.mean), 'the reference')
    if evaluator.source:
      if 'train' in parts:
        compared.create(*parts.values(), allow_overlap=config.data.allow_overlap)
      _check_channels(examples['test'], len(config.data.mean), 'the training')
  prefix = '' if name == kind else f'{name}_'
  return Measurement(evaluator, parts, prefix, num_classes)


def _num_classes(
  evaluator: evaluators.Evaluator,
  examples: dict[str, sources.Source],
  num_trained_classes: int,
) -> int | None:
  """Classes of the labels; 0 if none are needed, None if the training has none."""
  if not evaluator.needs_labels:
    return 0
  needs_classifier = 'logits' in evaluator.outputs
  if needs_classifier and not num_trained_classes:
    return None
  is_labelled = all(source.num_classes for source in examples.values())
  # A source that the evaluator names must have labels: `common_classes` checks.
  if not evaluator.source and not is_labelled:
    return None
  return common_classes(examples, num_trained_classes if needs_classifier else None)


def common_classes(
  examples: dict[str, sources.Source], num_trained_classes: int | None = None
) -> int:
  """Number of classes of all these examples.

  Args:
    examples: by split.
    num_trained_classes: those of a classifier that must fit, if any.

  Raises:
    ValueError: numbers differ, or examples do not have one label each.
  """
  found = {key: sources.single_label_classes(x) for key, x in examples.items()}
  if num_trained_classes is not None:
    found['the training'] = num_trained_classes
  if len(set(found.values())) > 1:
    counts = ', '.join(f'{count} of {key}' for key, count in found.items())
    raise ValueError(
      f'numbers of classes differ ({counts}); use splits with the same classes'
    )
  return found['test']


def _check_channels(source: sources.Source, num_channels: int, of: str) -> None:
  crop = loader.whole_image
  found = loader.image_shape(source, crop, num_channels=num_channels)[-1]
  if found != num_channels:
    raise ValueError(
      f'images have {found} channels, those of {of} {num_channels}; use images like '
      f'those of {of}'
    )
