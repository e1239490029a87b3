"""Linear evaluation: learning rates side by side, and every example counted once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.linear_eval import digits
from experiments import linear_eval, shared
from sslhsic import parallel
from sslhsic.runs import runner


def _config(init_from='random', rates=(0.1, 1.0), **changes):
  config = digits.get_config()
  config.init_from = str(init_from)
  config.network.encoder_options = {'channels_per_group': (4, 8)}
  config.optimizer.learning_rates = rates
  config.training.update(batch_size=16, epochs=1)
  config.data.train.split = 'train[:64]'
  config.data.validation.split = 'train[64:101]'
  config.data.test.split = 'test[:45]'
  config.evaluation.batch_size = 32  # 45 images do not divide.
  config.optimizer.learning_rate_batch_size = 16
  config.update_from_flattened_dict(changes)
  return config


def _train(config, steps=4):
  experiment = linear_eval.LinearEval('train', jax.random.key(0), config)
  for step in range(steps):
    experiment.step(step, jax.random.key_data(jax.random.key(0)))
  return experiment


def _classifiers(experiment):
  return jax.device_get(parallel.first(experiment.state.classifiers))


def test_one_pass_trains_each_learning_rate_as_it_were_alone():
  """Against optax, on the embeddings of the same batches."""
  config = _config()
  experiment = _train(config)
  source = experiment._train
  frozen = shared.frozen_encoder(config, source)
  embeddings, labels = frozen.embed(source)
  rows = _rows_of_steps(config, source, steps=4)
  for number, rate in enumerate((0.1, 1.0)):
    schedule = optax.cosine_decay_schedule(rate, 4)
    optimizer = optax.sgd(schedule, momentum=0.9, nesterov=True)
    params = {'w': jnp.zeros((8, 10)), 'b': jnp.zeros(10)}
    state = optimizer.init(params)

    def loss(params, x, y):
      logits = x @ params['w'] + params['b'][None]
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state, x, y, optimizer=optimizer, loss=loss):
      with jax.numpy_dtype_promotion('standard'):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
      return optax.apply_updates(params, updates), state

    for batch in rows:
      params, state = step(params, state, embeddings[batch], labels[batch])
    ours = _classifiers(experiment)
    np.testing.assert_allclose(ours.weights[number], params['w'], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ours.bias[number], params['b'], rtol=1e-3, atol=1e-5)


def test_optimiser_sees_each_classifier_alone():
  """LARS, whose steps depend on the norms of what it is given."""
  changes = {'optimizer.name': 'lars', 'optimizer.weight_decay': 0.1}
  together = _classifiers(_train(_config(**changes)))
  alone = _classifiers(_train(_config(rates=(1.0,), **changes)))
  np.testing.assert_allclose(together.weights[1:], alone.weights, rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(together.bias[1:], alone.bias, rtol=1e-4, atol=1e-7)
  assert np.any(alone.weights)


@pytest.mark.usefixtures('partly_labelled')
def test_images_without_a_label_do_not_count():
  accuracies = []
  for source in ('quick', 'slow'):
    experiment = _train(_config(**{'data.test.source': source}))
    accuracies.append(experiment._accuracies(experiment._test))
  np.testing.assert_allclose(*accuracies)
  assert np.min(accuracies) > 0


def _rows_of_steps(config, source, steps):
  """Rows of the source in each batch, known by their pixels."""
  experiment = linear_eval.LinearEval('train', jax.random.key(0), config)
  images = source.images.reshape(len(source), -1)
  batches = [np.asarray(next(experiment._input)['image']) for _ in range(steps)]
  return [
    np.array(
      [
        np.flatnonzero((images == image).all(axis=1))[0]
        for image in batch.reshape(-1, 64)
      ]
    )
    for batch in batches
  ]


def test_training_and_counts_are_equal_on_any_number_of_devices(
  monkeypatch, pretrained_run
):
  results = []
  # The encoder is frozen: microbatches of it change nothing.
  for count, num_microbatches in ((1, 1), (2, 4), (4, 1)):
    monkeypatch.setattr(parallel, 'devices', lambda n=count: jax.devices()[:n])
    changes = {'training.num_microbatches': num_microbatches}
    experiment = _train(_config(pretrained_run[0], **changes))
    counts = experiment._accuracies(experiment._test)
    results.append((_classifiers(experiment), np.array(counts) * 45))
  (classifiers, counts), *others = results
  np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
  for other, other_counts in others:
    np.testing.assert_allclose(other.weights, classifiers.weights, atol=1e-5)
    np.testing.assert_array_equal(other_counts, counts)


def test_run_reports_the_learning_rate_chosen_on_validation(pretrained_run, tmp_path):
  config = _config(pretrained_run[0], rates=(1e-6, 1.0), **{'training.epochs': 20})
  made = runner.Runner(linear_eval.LinearEval, config, tmp_path, 'train_and_eval')
  made.run()
  experiment = made._experiment
  results = experiment.report(80, tmp_path)
  scores = results['validation_top1']
  assert results['learning_rate'] == 1.0
  assert scores['1'] > scores['1e-06'] + 0.1
  assert results['linear_top1'] < results['linear_top5'] <= 1
  protocol = results['protocol']['linear_top1']
  assert 'chosen by top-1 on digits train[64:101]' in protocol
  assert 'sgd (momentum 0.9, nesterov True), no weight decay' in protocol


def test_run_does_not_go_on_with_another_encoder(pretrained_run, tmp_path):
  workdir, _ = pretrained_run
  config = _config(workdir)
  runner.Runner(linear_eval.LinearEval, config, tmp_path, 'train').run()
  runner.Runner(linear_eval.LinearEval, config, tmp_path, 'train').run()
  other = linear_eval.LinearEval('train', jax.random.key(0), _config())
  with pytest.raises(ValueError, match='another one than when this run was begun'):
    other.fingerprint = linear_eval.LinearEval(
      'train', jax.random.key(0), config
    ).fingerprint


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data.validation.source': ''}, '2 learning rates and no validation split'),
    ({'optimizer.learning_rates': ()}, 'learning_rates is empty'),
    ({'optimizer.sgd.momentum': 1.0}, r'config\.optimizer: momentum is 1\.0'),
    ({'optimizer.decayed': ('w',)}, "'w' matches no parameter of weights, bias"),
    ({'training.num_microbatches': 4}, '2 images per device do not divide into 4 mic'),
    ({'training.batch_size': 12}, 'batch size 12 does not divide over 8 devices'),
    ({'data.crop_size': 8, 'data.evaluation_crop': 'x'}, "evaluation_crop 'x'; use"),
  ],
)
def test_mistakes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    linear_eval.LinearEval('train', jax.random.key(0), _config(**changes))
