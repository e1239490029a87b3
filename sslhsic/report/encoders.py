"""Sections on pre-trained encoders and on the images they have seen."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sslhsic import augment
from sslhsic.data import loader, sources
from sslhsic.evaluation import encoder
from sslhsic.plots import embeddings, geometry, sheets
from sslhsic.pretraining import views as views_lib
from sslhsic.report import collect, page
from sslhsic.report import sections as sections_lib
from sslhsic.runs import checkpoint
from sslhsic.weights import pretrained
from sslhsic.weights import settings as settings_lib

_NUM_IMAGES = 1000  # Images of the evaluation that are looked at.
_NUM_QUERIES = 8
_NUM_NEIGHBOURS = 8
_NUM_AUGMENTED = 12
_MAP = 2.5, 2.7  # Inches.


class Seen(NamedTuple):
  """What an encoder makes of the images of the evaluation, before and after training.

  Attributes:
    images: uint8 [n, H, W, C].
    labels: [n], or [n, C]; -1 where there is none.
    before, after: embeddings [n, c] of the untrained and of the trained encoder.
  """

  images: np.ndarray
  labels: np.ndarray
  before: np.ndarray
  after: np.ndarray


def sections(
  found: Sequence[collect.Run], num_encoders: int
) -> tuple[page.Section, ...]:
  """Views, maps, spectra and neighbours of the first runs that have a checkpoint."""
  with_encoder = [run for run in found if checkpoint.steps(run.path / 'checkpoints')]
  looked_at = with_encoder[:num_encoders]
  views, maps, nearest, spectra, notes = [], [], [], {}, []
  if len(looked_at) < len(with_encoder):
    notes.append(
      page.note(
        f'{len(looked_at)} of {len(with_encoder)} encoders; more by --encoders.'
      )
    )
  for run in looked_at:
    try:
      seen = look(run.config, str(run.path))
      sheet = view_sheet(run.config)
    # Its data or its checkpoint are elsewhere, or it is of another version.
    except (ValueError, OSError, KeyError) as error:
      lacks = (
        f'its configuration has no {error}' if isinstance(error, KeyError) else error
      )
      notes.append(page.note(f'{run.name} cannot be looked into: {lacks}'))
      continue
    if sheet not in views:  # Of another seed or augmentation than those before.
      views += [page.heading(run.name), sheet]
    heading = page.heading(f'{run.name}: {run.config["evaluation"]["test_split"]}')
    maps += [heading, map_charts(seen)]
    nearest += [heading, neighbour_sheets(seen)]
    spectra[f'{run.name}, untrained'] = geometry.spectrum(seen.before)
    spectra[run.name] = geometry.spectrum(seen.after)
  notes = ''.join(notes)
  return (
    page.Section('Augmented views', ''.join(views)),
    page.Section('Maps of the images of the evaluation', notes + ''.join(maps)),
    page.Section('Spectrum of the embedding covariance', _spectrum_chart(spectra)),
    page.Section('Nearest neighbours', ''.join(nearest)),
  )


def look(config: dict[str, Any], directory: str) -> Seen:
  """Embeds the first images of the evaluation of a pre-training run.

  Args:
    config: of the run.
    directory: its working directory.

  Raises:
    ValueError: there is no such data, or no good checkpoint.
  """
  source = sources.create(config['data']['source'], config['evaluation']['test_split'])
  first = sources.SubsetSource(source, np.arange(min(_NUM_IMAGES, len(source))))
  untrained, trained = (
    _encoder(config, init_from, first) for init_from in (pretrained.RANDOM, directory)
  )
  before, after = untrained.embed(first), trained.embed(first)
  batches = trained.one_pass(first)
  # The mask leaves out what `embed` has left out, so that rows correspond.
  images = np.concatenate([batch['image'][batch['mask']] for batch in batches])
  return Seen(images, after.labels, before.features, after.features)


def _encoder(
  config: dict[str, Any], init_from: str, source: sources.Source
) -> encoder.FrozenEncoder:
  """The encoder of a pre-training run, or its untrained one, on images as in it."""
  settings = settings_lib.of_run(config, description=init_from)
  return encoder.FrozenEncoder(
    settings,
    init_from=init_from,
    source=source,
    crop=encoder.crop(
      settings.crop_size, settings.evaluation_crop, settings.interpolation
    ),
    batch_size=config['evaluation']['batch_size'],
    max_bad_fraction=config['data']['max_bad_fraction'],
    max_pixels=config['data']['max_pixels'],
    seed=config['seed'],
  )


# Views


def view_sheet(config: dict[str, Any]) -> str:
  """All views of some training images, as the network has seen them."""
  data = config['data']
  source = sources.create(data['source'], data['train_split'])
  views = views_lib.parse(config['augment']['views'])
  # The stream of the training: same seed, so the same first images and crops.
  batches = loader.views(
    source,
    batch_size=_NUM_AUGMENTED,
    seed=config['seed'],
    crops=[view.crop(data['crop_size'], data['interpolation']) for view in views],
    num_workers=0,
    max_bad_fraction=data['max_bad_fraction'],
    max_pixels=data['max_pixels'],
    num_channels=len(data['mean']),
  )
  batch = next(iter(batches))
  rows = []
  policies = views_lib.policies(
    views, mean=data['mean'], std=data['std'], **config['augment']['options']
  )
  for view, policy in enumerate(policies):
    keys = augment.keys(jax.random.key(config['seed']), batch['index'], view)
    normalised = jax.jit(policy)(keys, batch[f'view{view + 1}'])
    # From normalised values back to the colours that the network has seen.
    images = np.asarray(normalised) * data['std'] + data['mean']
    rows.append(np.round(255 * np.clip(images, 0, 1)).astype(np.uint8))
  caption = (
    'The views of an image one above the other: the first batch of the training.'
  )
  return page.image(sheets.data_address(_padded(rows)), caption)


def _padded(rows: list[np.ndarray]) -> list[np.ndarray]:
  """Images [n, H, W, C] of one size, the largest, with white where there is none."""
  height, width = (max(row.shape[axis] for row in rows) for axis in (1, 2))
  return [
    np.pad(
      row,
      ((0, 0), (0, height - row.shape[1]), (0, width - row.shape[2]), (0, 0)),
      constant_values=255,
    )
    for row in rows
  ]


# Embeddings


def map_charts(seen: Seen) -> str:
  """Maps to the plane before and after training, coloured by class."""
  # Images of several classes have no one colour: all are in one group.
  labels = seen.labels if seen.labels.ndim == 1 else np.full(len(seen.labels), -1)
  charts = []
  for when, features in (('untrained', seen.before), ('trained', seen.after)):
    for method, points in geometry.maps(features).items():
      draw = functools.partial(embeddings.by_class, points=points, labels=labels)
      charts.append(page.chart(f'{method}, {when}', draw, size=_MAP))
  names = [f'class {name}' for name in np.unique(labels)]
  legend = page.classes(names) if len(names) <= embeddings.MAX_LEGEND else ''
  return page.side_by_side(charts) + legend


def neighbour_sheets(seen: Seen) -> str:
  """Some images, each with those whose embeddings are nearest to its own."""
  count = min(_NUM_QUERIES, len(seen.images))
  # Evenly spaced, as a split may be sorted by class.
  rows = np.linspace(0, len(seen.images) - 1, count).astype(int)
  parts = []
  for when, features in (('untrained', seen.before), ('trained', seen.after)):
    nearest = geometry.neighbours(features, rows, _NUM_NEIGHBOURS)
    shown = np.concatenate([rows[:, None], nearest], axis=1)
    is_other = _are_of_other_class(seen.labels, rows, shown)
    parts.append(
      page.image(
        sheets.data_address(seen.images[shown], is_other),
        f'{when}: the first of a row, and its neighbours among '
        f'{len(seen.images):,} images; red: of another class.',
      )
    )
  return page.side_by_side(parts)


def _are_of_other_class(
  labels: np.ndarray, rows: np.ndarray, shown: np.ndarray
) -> np.ndarray:
  if labels.ndim != 1:  # Images of several classes.
    return np.zeros(shown.shape, bool)
  return labels[shown] != labels[rows][:, None]


def _spectrum_chart(spectra: dict[str, np.ndarray]) -> str:
  if not spectra:
    return ''
  points = {
    name: [(rank, float(share)) for rank, share in enumerate(values, 1)]
    for name, values in spectra.items()
  }
  chart = sections_lib.line_chart(
    points, 'share of the variance', x_label='rank of the eigenvalue', log_y=True
  )
  return page.side_by_side([chart, page.legend(list(spectra))])
