"""Fine-tuning: the grid, and a run that is killed in it."""

import functools
import json

import chex
import haiku as hk
import jax
import numpy as np
import optax
import pytest

from configs.finetune import digits_1pct
from experiments import finetune, shared
from sslhsic import inference, parallel
from sslhsic.evaluation import encoder
from sslhsic.networks import classifier
from sslhsic.runs import runner
from sslhsic.weights import pretrained


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])


def _config(**changes):
  config = digits_1pct.get_config()
  config.init_from = 'random'
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.data.train.split = 'train[:20]'
  config.data.validation.split = 'train[20:60]'
  config.data.test.split = 'test[:45]'
  config.training.update(
    batch_size=8,
    epochs=(),
    steps=(4,),
    learning_rates=(0.1, 1e-6),
    learning_rate_batch_size=8,
  )
  config.retrain = True
  config.evaluation.batch_size = 32
  config.runner.checkpoint_every = 1
  config.update_from_flattened_dict(changes)
  return config


def test_grid_has_every_combination():
  config = digits_1pct.get_config()
  config.training.update(
    batch_size=10,
    epochs=(3, 5),
    learning_rates=(0.1, 0.2),
    learning_rate_batch_size=5,
    weight_decays=(0.0, 1e-3),
  )
  settings = finetune.grid(config, num_examples=25)
  expected = [
    (rate, decay / rate, steps)
    for steps in (7, 12)
    for rate in (0.2, 0.4)
    for decay in (0.0, 1e-3)
  ]
  np.testing.assert_allclose(settings, expected)


@pytest.mark.usefixtures('partly_labelled')
def test_images_without_a_label_do_not_count():
  scores = []
  for source in ('quick', 'slow'):
    config = _config(**{'data.test.source': source})
    experiment = finetune.FineTune('eval', jax.random.key(0), config)
    scores.append(experiment._score('test', experiment.best))
  assert scores[0] == pytest.approx(scores[1])
  assert scores[0] > 0


def test_every_setting_takes_the_steps_of_optax():
  """SGD with Nesterov momentum, a cosine over its own steps, λ divided by the rate."""
  config = _config(
    **{
      'network.encoder': 'vit_digits',  # Without batch statistics.
      'network.encoder_options': {'width': 8, 'depth': 1, 'num_heads': 2},
      'augment.policy': 'none',
      'retrain': False,
      'training.steps': (2,),
      'training.learning_rates': (0.1, 0.05),
      'training.weight_decays': (0.01,),
    }
  )
  experiment = finetune.FineTune('train', jax.random.key(0), config)
  stream = shared.training_input(config, experiment._sources['train'])
  batches = [jax.tree.map(np.concatenate, jax.device_get(next(stream))) for _ in '12']
  rates, ends = [], []
  for number in range(4):
    scalars = experiment.step(number, jax.random.key_data(jax.random.key(0)))
    rates.append(float(scalars['learning_rate']))
    ends.append(jax.device_get(parallel.first(experiment.state.network.params)))
  np.testing.assert_allclose(rates, [0.1, 0.05, 0.05, 0.025], rtol=1e-6)

  @jax.jit
  def gradient(params, batch):
    images = (batch['image'] / np.float32(255) - config.data.mean[0]) / np.float32(
      config.data.std[0]
    )

    def loss(params):
      network = experiment._networks['train']
      logits, _ = network.apply(
        params, experiment._start.network_state, None, images, True
      )
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, batch['label']
      ).mean()

    return jax.grad(loss)(params)

  decayed = lambda params: hk.data_structures.map(
    lambda m, name, _: name == 'w', params
  )
  for rate, found in zip((0.1, 0.05), ends[1::2], strict=True):
    optimizer = optax.chain(
      optax.add_decayed_weights(0.01 / rate, mask=decayed),
      optax.sgd(optax.cosine_decay_schedule(rate, 2), momentum=0.9, nesterov=True),
    )
    params = experiment._start.params
    state = optimizer.init(params)
    for batch in batches:
      with jax.numpy_dtype_promotion('standard'):
        updates, state = optimizer.update(gradient(params, batch), state, params)
      params = optax.apply_updates(params, updates)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, found, jax.device_get(params))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'training.epochs': (3,)}, 'give the lengths to try as one of them'),
    ({'training.steps': ()}, 'give the lengths to try as one of them'),
    ({'training.steps': (0,)}, 'make no step of 8; use smaller batches'),
    ({'data.validation.source': ''}, '2 settings and no validation split'),
    ({'training.steps': (4, 5)}, 'one length in steps or epochs'),
    ({'metric': 'top2'}, "unknown metric 'top2'; use one of top1"),
    ({'data.train.source': 'digit'}, "unknown data source 'digit'"),
    ({'optimizer.sgd.momentum': 1.0}, r'config\.optimizer: momentum is 1\.0'),
    ({'training.num_microbatches': 3}, '4 images per device do not divide into 3 mic'),
    ({'optimizer.name': 'lamb'}, r"config\.optimizer: unknown optimiser 'lamb'"),
  ],
)
def test_mistakes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    finetune.FineTune('train', jax.random.key(0), _config(**changes))


class Killed(finetune.FineTune):
  """Ends the process, so to say, after a number of steps."""

  steps_left = 0

  def step(self, global_step, rng):
    if not Killed.steps_left:
      raise KeyboardInterrupt
    Killed.steps_left -= 1
    return super().step(global_step, rng)


def test_microbatches_take_the_steps_of_the_whole_batch():
  """Of a network without batch norm, whose statistics depend on the part."""
  changes = {
    'network.encoder': 'vit_digits',
    'network.encoder_options': {'width': 8, 'depth': 2, 'num_heads': 2},
    'data.train.split': 'train[:20]',
    'training.batch_size': 16,
  }
  results, temporary = [], []
  for count in (1, 4):
    changes['training.num_microbatches'] = count
    experiment = finetune.FineTune('train', jax.random.key(0), _config(**changes))
    rng = jax.random.key_data(jax.random.key(0))
    losses = [float(experiment.step(step, rng)['loss']) for step in range(2)]
    results.append((losses, parallel.first(experiment.state)))
    arguments = experiment.state, experiment._trainings.next_batch()
    settings = np.float32(0.1), np.float32(0)
    lowered = experiment._steps['train'].lower(*arguments, *settings)
    temporary.append(lowered.compile().memory_analysis().temp_size_in_bytes)
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, *results)
  assert temporary[1] < 0.6 * temporary[0], temporary


def _run(path, experiment=finetune.FineTune):
  made = runner.Runner(experiment, _config(), path, 'train')
  made.run()
  return made._experiment


def test_killed_run_ends_with_the_same_bits(tmp_path):
  """Killed within a training, between two, and in the last on all examples."""
  whole = _run(tmp_path / 'whole')
  assert whole.num_steps == 3 * 4
  for steps in (2, 2, 6):
    Killed.steps_left = steps
    with pytest.raises(KeyboardInterrupt):
      _run(tmp_path / 'killed', Killed)
  resumed = _run(tmp_path / 'killed')
  assert resumed._trainings.scores == whole._trainings.scores
  assert len(whole._trainings.scores) == 2
  for x, y in zip(
    jax.tree.leaves(resumed.best), jax.tree.leaves(whole.best), strict=True
  ):
    np.testing.assert_array_equal(x, y)
  report = resumed.report(12, tmp_path)
  assert report['setting']['learning_rate'] == pytest.approx(0.1)
  assert 0 <= report['finetune_top1'] <= report['finetune_top5'] <= 1
  for name in ('finetune_top1', 'finetune_top5'):
    assert 'trained again on train and validation' in report['protocol'][name]


def test_evaluations_start_from_the_network_that_was_tested(tmp_path):
  config = _config(retrain=False)
  made = runner.Runner(finetune.FineTune, config, tmp_path, 'train_and_eval')
  made.run()
  settings = pretrained.settings(str(tmp_path))
  assert settings.description == f'{tmp_path}, step 8: fine-tuned on digits'
  network = classifier.encoder(
    encoder=settings.encoder, encoder_options=settings.encoder_options
  )
  names = ('encoder', 'encoder_options', 'mean', 'std')
  start = pretrained.load(
    str(tmp_path),
    *encoder.initial_values(network, (8, 8, 1), seed=5),
    **{name: getattr(settings, name) for name in names},
  )
  experiment = made._experiment
  tested, last = parallel.first((experiment.best, experiment.state.network))
  for found, expected in zip(start[:2], tested, strict=True):
    assert found.keys() == {x for x in expected if x.startswith('encoder')}
    for module, leaves in found.items():
      chex.assert_trees_all_equal(leaves, expected[module])
  assert experiment._trainings.best == 0
  assert start.fingerprint != pretrained.fingerprint(*last)
  results = json.loads((tmp_path / 'results.json').read_text())
  assert start.fingerprint == results['trained_fingerprint']
  assert np.isfinite(inference.Encoder(tmp_path)(np.zeros((1, 8, 8, 1)))).all()
  # What was not tested may not be what was chosen.
  with pytest.raises(ValueError, match='has results of step 8 alone, not of step 7'):
    pretrained.settings(f'{tmp_path}/checkpoints/7')
  (tmp_path / 'results.json').unlink()
  with pytest.raises(ValueError, match='has no results, not of step 8, whose network'):
    pretrained.settings(str(tmp_path))
  with pytest.raises(
    ValueError, match='is a run of fine-tuning, not a pre-training; gi'
  ):
    pretrained.read_run(str(tmp_path))


def test_best_network_is_that_of_the_best_score(monkeypatch):
  """Of equal scores, the first."""
  experiment = finetune.FineTune('train', jax.random.key(0), _config(retrain=False))
  start = experiment.position
  for scores in ((0.5, 0.4), (0.4, 0.5), (0.5, 0.5)):
    experiment.position = start | {'scores': []}
    given = iter(scores)
    monkeypatch.setattr(experiment, '_score', lambda *_, given=given: next(given))
    ends = []
    for step in range(8):
      experiment.step(step, jax.random.key_data(jax.random.key(0)))
      if step % 4 == 3:
        ends.append(jax.device_get(experiment.state.network))
    assert experiment._trainings.scores == list(scores)
    for x, y in zip(
      jax.tree.leaves(experiment.best),
      jax.tree.leaves(ends[int(np.argmax(scores))]),
      strict=True,
    ):
      np.testing.assert_array_equal(x, y)


def test_setting_that_diverges_loses_and_the_others_go_on(tmp_path):
  config = _config(**{'training.learning_rates': (1e30, 0.1)})
  made = runner.Runner(finetune.FineTune, config, tmp_path, 'train')
  made.run()
  report = made._experiment.report(12, tmp_path)
  assert report['setting']['learning_rate'] == pytest.approx(0.1)
  scores = [tried['score'] for tried in report['validation_scores']]
  assert scores[0] is None
  assert 0 <= scores[1] <= 1


def test_settings_that_all_diverge_end_the_run(tmp_path):
  config = _config(**{'training.learning_rates': (1e30, 1e31)})
  with pytest.raises(runner.TrainingError, match='all 2 settings have diverged'):
    runner.Runner(finetune.FineTune, config, tmp_path, 'train').run()
