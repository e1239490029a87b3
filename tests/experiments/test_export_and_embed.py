"""Weights in and out, as a user moves them."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import sslhsic
from sslhsic import parallel
from sslhsic.data import sources
from sslhsic.evaluation import encoder
from sslhsic.weights import files, layouts, resnet

OPTIONS = {'channels_per_group': (4, 8)}
NETWORK = f'--config.network.encoder_options={OPTIONS}'


# Export


@pytest.mark.parametrize('format_name', ['haiku', 'torchvision'])
def test_export_is_evaluated_like_its_run(
  pretrained_run, run_program, format_name, tmp_path
):
  """The same embeddings, to the bit, and the same fingerprint where all is exported."""
  workdir, _ = pretrained_run
  out = tmp_path / 'out'
  code, printed, _ = run_program(
    'export',
    f'--init_from={workdir}',
    f'--format={format_name}',
    f'--out={out}',
    '--projector',
  )
  assert code == 0
  assert printed == (
    f'{workdir}, step 2: ssl_hsic on digits: {format_name} in {out}, see '
    f'{out}/README.md\n'
  )
  images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
  run, export = (sslhsic.load(path) for path in (workdir, out))
  np.testing.assert_array_equal(run(images), export(images))
  assert export.settings == run.settings
  source = sources.create('digits', 'test[:8]')
  prints = [
    encoder.FrozenEncoder(
      run.settings,
      init_from=str(path),
      source=source,
      crop=encoder.crop(0),
      batch_size=8,
      max_bad_fraction=0.0,
    ).fingerprint
    for path in (workdir, out)
  ]
  assert (prints[0] == prints[1]) == (format_name == 'haiku')
  text = (out / 'README.md').read_text()
  assert '| data | digits, train[:32] |' in text
  assert f'--format={format_name}' in text


def test_weights_are_averaged_or_those_of_the_last_step(
  pretrained_run, run_program, tmp_path
):
  workdir, experiment = pretrained_run
  state = jax.device_get(parallel.first(experiment.state))
  averaged, _ = jax.device_get(parallel.first(experiment._averaged_network()))
  for weights, params in (('ema', averaged), ('online', state.params)):
    arguments = f'--init_from={workdir}', '--format=haiku', f'--weights={weights}'
    code, _, _ = run_program('export', *arguments, f'--out={tmp_path / weights}')
    assert code == 0
    found = safetensors.numpy.load_file(tmp_path / weights / files.WEIGHTS_NAME)
    of_encoder = {
      f'{module}/{leaf}': value
      for module, leaves in params.items()
      if module.startswith('encoder/')
      for leaf, value in leaves.items()
    }
    assert len(of_encoder) > 5
    for name, value in of_encoder.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-6)
  name = 'encoder/stem_conv'
  assert not np.allclose(averaged[name]['w'], state.params[name]['w'], rtol=1e-6)


def test_card_lists_evaluations_of_these_weights_only(
  pretrained_run, run_program, tmp_path
):
  workdir, _ = pretrained_run
  evaluation = tmp_path / 'knn'
  arguments = '--config=configs/knn/digits.py', NETWORK, f'--workdir={evaluation}'
  start = f'--config.init_from={workdir}/checkpoints/1'
  assert run_program('knn', *arguments, start)[0] == 0
  top1 = json.loads((evaluation / 'results.json').read_text())['knn_top1']
  export = '--format=haiku', f'--evaluation={evaluation}'
  out = tmp_path / 'out'
  checkpoint = f'--init_from={workdir}/checkpoints/1'
  assert run_program('export', *export, checkpoint, f'--out={out}')[0] == 0
  assert f'| knn_top1 | {top1:.4g} |' in (out / 'README.md').read_text()
  code, _, error = run_program(
    'export', *export, f'--init_from={workdir}', f'--out={tmp_path / "other"}'
  )
  assert code == 1
  assert f'error: {evaluation} has evaluated {workdir}/checkpoints/1, step 1' in error
  assert not (tmp_path / 'other').exists()


# Import


@pytest.fixture
def foreign(random_encoder, tmp_path):
  """A file with random weights, named and laid out as torchvision's."""
  trees = random_encoder('resnet_digits', channels=1, **OPTIONS)
  tensors = layouts.to_tensors(resnet.TORCHVISION, *trees)
  path = tmp_path / 'foreign.safetensors'
  classifier = {'fc.weight': np.zeros((10, 8)), 'fc.bias': np.zeros(10)}
  safetensors.numpy.save_file(tensors | classifier, path)
  return path


@pytest.mark.parametrize(
  ('program', 'config', 'metric', 'settings'),
  [
    (
      'linear_eval',
      'linear_eval/digits',
      'linear_top1',
      ('training.epochs=2', 'runner.evaluate_every=0'),
    ),
    (
      'transfer',
      'transfer/digits_linear',
      'digits_top1',
      ('only=digits', 'l2=(1e-3, 1.0, 2)'),
    ),
  ],
)
def test_foreign_weights_are_evaluated(
  foreign, run_program, program, config, metric, settings, tmp_path
):
  code, _, error = run_program(
    program,
    f'--config=configs/{config}.py',
    f'--config.init_from={foreign}',
    f'--workdir={tmp_path / "run"}',
    NETWORK,
    *(f'--config.{setting}' for setting in settings),
  )
  assert code == 0, error
  assert f'{foreign}: not used are fc (2 tensors)' in error
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert results['encoder'] == f'{foreign}, in the layout of torchvision'
  assert 0.1 < results[metric] < 1  # Better than chance, of random features.


# Embed


def test_embeddings_are_written(pretrained_run, run_program, tmp_path):
  workdir, _ = pretrained_run
  out = tmp_path / 'embeddings.npz'
  code, printed, _ = run_program(
    'embed',
    f'--init_from={workdir}',
    '--data=digits',
    '--split=test[:20]',
    f'--out={out}',
  )
  assert code == 0
  assert printed.endswith(f'{out} has 20 embeddings of 8 numbers\n')
  source = sources.create('digits', 'test[:20]')
  loaded = sslhsic.load(workdir)
  expected = loaded(loaded.preprocess([source[i]['image'] for i in range(20)]))
  with np.load(out, allow_pickle=False) as found:
    np.testing.assert_allclose(found['embeddings'], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found['labels'], source.labels)
    assert found['names'].tolist() == [source.name(row) for row in range(20)]


@pytest.mark.parametrize(
  ('program', 'arguments', 'message'),
  [
    ('export', ('--out=out',), 'give --init_from=RUN and --out=DIR'),
    ('embed', ('--data=digits',), 'give --init_from=RUN and --data=SOURCE'),
    (
      'embed',
      ('--init_from=moco.pth', '--data=digits'),
      'moco.pth is of a kind that runs code',
    ),
  ],
)
def test_mistakes_end_with_one_line(run_program, program, arguments, message):
  code, printed, error = run_program(program, *arguments)
  assert (code, printed) == (1, '')
  assert error.startswith(f'error: {message}')
  assert error.count('\n') == 1
