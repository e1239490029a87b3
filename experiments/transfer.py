"""Measures an encoder on other classification data sets, and prints their table.

python -m experiments.transfer --config=configs/transfer/linear.py --workdir=DIR \
  --config.init_from=RUN

Each data set has a working directory of its own below DIR; those that are done are not
done again.
"""

import contextlib
import gc
import json
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments import finetune, shared
from sslhsic import atomic, parallel, storage
from sslhsic.data import compared, sources
from sslhsic.evaluation import encoder, features, metrics, probe, representations
from sslhsic.runs import measurement, parts, processes, runner, workdir
from sslhsic.tables import printed

PARTS = ('train', 'validation', 'test')


def measure(config: ml_collections.ConfigDict, path: storage.Path) -> dict[str, Any]:
  """The metric of every task, by the protocol of the configuration."""
  if config.protocol not in PROTOCOLS:
    raise ValueError(
      f'unknown protocol {config.protocol!r}; use one of {", ".join(PROTOCOLS)}'
    )
  names = chosen(config)
  check_sources(config, names)
  _check_encoder(config, path, names)
  results, protocols, failed = {}, {}, {}
  for name in names:
    # One process of several cannot go on alone.
    attempt = parts.part(name, failed)
    with attempt if jax.process_count() == 1 else contextlib.nullcontext():
      found = _do_task(config, name, path / name)
      metric = config.tasks[name].metric
      results[name] = {'metric': metric, 'value': found[f'{config.protocol}_{metric}']}
      protocols[name] = found['protocol']
    if name in failed:
      print(f'{name} has failed: {failed[name]}')
  if not results:
    raise ValueError(next(iter(failed.values())))
  print(table(config, results))
  plain = {f'{name}_{x["metric"]}': x['value'] for name, x in results.items()}
  if failed:
    plain['failed'] = failed
  return plain | {
    'tasks': results,
    'encoder': found['encoder'],
    'encoder_fingerprint': found.get('encoder_fingerprint'),  # Older tasks do not say.
    'protocol': protocols,
  }


def _do_task(
  config: ml_collections.ConfigDict, name: str, directory: storage.Path
) -> dict[str, Any]:
  """The results of a task, which is done unless it was before."""
  found = _read_results(directory)
  if found:
    return found
  print(f'{name}:')
  PROTOCOLS[config.protocol](task_config(config, name), directory)
  # Networks, momenta and worker processes of a task end with it, and its programs.
  gc.collect()
  jax.clear_caches()
  found = _read_results(directory)
  if not found:  # A signal has stopped it, which the runner has said.
    raise SystemExit(0)
  return found


def _check_encoder(
  config: ml_collections.ConfigDict, path: storage.Path, names: list[str]
) -> None:
  """Checks that tasks that were done before were done with the encoder of now.

  Raises:
    ValueError: one was done with another encoder, or before this was trained further.
  """
  fingerprints = {}  # By the number of channels, which random values depend on.
  for name in names:
    if not _read_results(path / name):
      continue
    of_task = task_config(config, name)
    train = of_task.data.train
    source = sources.create(train.source, train.split)
    channels = shared.image_shape(of_task, source)[-1]
    if channels not in fingerprints:
      frozen = shared.frozen_encoder(of_task, source)
      fingerprints[channels] = frozen.fingerprint
    shared.check_encoder(path / name, fingerprints[channels], config.init_from)


def _read_results(directory: storage.Path) -> dict[str, Any]:
  """Of a task; empty if it is not done. The same in all processes."""
  found = processes.first_does(lambda: workdir.read_results(directory))
  return json.loads(processes.from_first(json.dumps(found).encode()))


def chosen(config: ml_collections.ConfigDict) -> list[str]:
  """Names of the tasks to do.

  Raises:
    ValueError: there is no such task, or none is named.
  """
  names = list(config.only)
  if not names or not set(names) <= set(config.tasks):
    raise ValueError(
      f'config.only is {tuple(names)}; name some of {", ".join(config.tasks)}'
    )
  return names


def check_sources(config: ml_collections.ConfigDict, names: list[str]) -> None:
  """Refuses, before anything is measured, what lacks a data set.

  Raises:
    ValueError: with all that is missing, and how to prepare it.
  """
  missing = []
  for name in names:
    try:
      for part in PARTS:
        sources.create(config.tasks[name].source, config.tasks[name][part])
    except ValueError as error:
      missing.append(f'{name}: {error}')
  if missing:
    raise ValueError(
      f'{len(missing)} of {len(names)} data sets cannot be read; prepare them or name '
      f'the others in config.only. {" | ".join(missing)}'
    )


def task_config(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """The configuration of one task alone, as `finetune` takes it."""
  task = config.tasks[name]
  of_task = ml_collections.ConfigDict(config.to_dict())
  # Fields of this program, which `finetune` does not have.
  for field in ('tasks', 'only', 'protocol', 'published'):
    del of_task[field]
  of_task.metric = task.metric
  for part in PARTS:
    of_task.data[part] = {'source': task.source, 'split': task[part]}
  return of_task


# Protocols


def fine_tuned(config: ml_collections.ConfigDict, path: storage.Path) -> None:
  """The whole network, over the grid; see `finetune`."""
  try:
    runner.Runner(finetune.FineTune, config, path, 'train_and_eval').run()
  except runner.TrainingError as error:
    # The caller reports a `ValueError` by its message alone.
    raise ValueError(str(error)) from error


def linear(config: ml_collections.ConfigDict, path: storage.Path) -> None:
  """Logistic regression on the frozen encoder's embeddings, in `path`."""
  measurement.run(_measure_linear, config, path, free=('init_from',))


PROTOCOLS = {'linear': linear, 'finetune': fine_tuned}


def _measure_linear(config: ml_collections.ConfigDict, path: storage.Path):
  data = config.data
  made = compared.create(
    *(data[part] for part in PARTS), allow_overlap=data.allow_overlap
  )
  data_sets = dict(zip(PARTS, made, strict=True))
  frozen = shared.frozen_encoder(config, data_sets['train'])
  shared.check_encoder(path, frozen.fingerprint, config.init_from)
  train, validation, test = (
    _cached(frozen, part, source, path) for part, source in data_sets.items()
  )
  low, high, count = config.l2
  l2s = np.logspace(np.log10(low), np.log10(high), count).tolist()
  selection = probe.select(
    *train, *validation, num_classes=data_sets['train'].num_classes, l2s=l2s
  )
  logits = jax.device_get(probe.predict(selection.probe, test.features))
  value = float(metrics.create(config.metric)(logits, test.labels))
  print(f'linear {config.metric} {value:.3f}, L2 penalty {selection.l2:.2g}')
  regression = 'multinomial logistic regression'
  if train.labels.ndim == 2:
    regression = 'a logistic regression for each class'
  return {
    f'linear_{config.metric}': value,
    'l2': selection.l2,
    'validation_losses': {
      f'{l2:.3g}': loss
      for l2, loss in zip(l2s, selection.losses.tolist(), strict=True)
      if np.isfinite(loss)  # Others are of penalties too weak to be tried.
    },
    'num_examples': {part: len(source) for part, source in data_sets.items()},
    'encoder': frozen.description,
    'encoder_fingerprint': frozen.fingerprint,
    'protocol': {
      f'linear_{config.metric}': f'{regression} with an L2 penalty, L-BFGS, one of '
      f'{count} penalties in [{low:g}, {high:g}] chosen by the loss on '
      f'{data.validation.split}, fitted again on {data.train.split} and '
      f'{data.validation.split}; {shared.describe(config)}; one pass over '
      f'{data.test.source} {data.test.split}'
    },
  }


def _cached(
  frozen: encoder.FrozenEncoder, part: str, source: sources.Source, path: storage.Path
) -> representations.Split:
  """Embeddings of a part of the data, extracted once and kept on disk."""
  # The fingerprint keeps embeddings of another encoder from being read.
  file = path / f'embeddings-{frozen.fingerprint}-{part}.npz'
  # Where one process does not see the file of the first, all of them embed together.
  num_seen = parallel.sum_of_hosts(np.int32(storage.exists(file)))
  if num_seen == jax.process_count():
    with storage.local(file) as local, np.load(local, allow_pickle=False) as arrays:
      return representations.Split(arrays['features'], arrays['labels'])
  found = frozen.embed(source)
  split = features.labelled(found, found.labels)
  processes.first_does(lambda: _write_arrays(file, split._asdict()))
  return split


def _write_arrays(file: storage.Path, arrays: dict[str, np.ndarray]) -> None:
  with atomic.opened(file) as opened:
    np.savez(opened, **arrays)


def table(config: ml_collections.ConfigDict, results: dict[str, Any]) -> str:
  """The values of all tasks in percent, above the published rows, as lines of text."""
  rows = {'this encoder': {name: 100 * x['value'] for name, x in results.items()}}
  rows |= {name: dict(row) for name, row in config.published.items()}
  lines = [['', *results], ['', *(_SHORT[x['metric']] for x in results.values())]]
  for title, row in rows.items():
    cells = (f'{row[name]:.1f}' if name in row else '' for name in results)
    lines.append([title, *cells])
  return f'\n{printed.columns(lines, 14, first=26)}\n'


_SHORT = {
  'top1': 'top-1',
  'mean_per_class': 'per class',
  'mean_average_precision': '11-point mAP',
}


if __name__ == '__main__':
  # Tasks that were done before count, whichever were named with them.
  measurement.main(measure, free=('init_from', 'only'))
