"""Every evaluation of a Vision Transformer, from a pre-training of two steps."""

import json

import jax
import numpy as np
import pytest

from configs.few_label import digits as few_label_digits
from configs.finetune import digits_10pct
from configs.knn import digits as knn_digits
from configs.linear_eval import digits as linear_digits
from configs.pretrain import digits_vit
from configs.segmentation import shapes_vit
from configs.transfer import digits_linear
from experiments import finetune, linear_eval, pretrain, segmentation
from sslhsic import parallel
from sslhsic.networks import classifier
from sslhsic.runs import measurement, runner
from sslhsic.weights import pretrained
from tests.experiments.programs import MEASURED

# With all parameters that a ViT may have.
OPTIONS = {
  'width': 8,
  'depth': 1,
  'pooling': 'class',
  'positions': 'learned',
  'num_registers': 1,
}
CONFIGS = {
  'linear_eval': linear_digits,
  'finetune': digits_10pct,
  'knn': knn_digits,
  'few_label': few_label_digits,
  'transfer': digits_linear,
}
CHANGES = {
  'linear_eval': {
    'optimizer.learning_rates': (0.1,),
    'training.batch_size': 16,
    'training.epochs': 1,
    'training.warmup_steps': 0,
  },
  'finetune': {
    'training.batch_size': 16,
    'training.learning_rates': (0.1,),
    'training.weight_decays': (0.0,),
    'training.epochs': (),
    'training.steps': (2,),
    'retrain': False,
  },
  'knn': {'protocol.k': (5,)},
  'few_label': {'protocol.labels_per_class': (1,), 'protocol.num_draws': 1},
  'transfer': {'only': ('digits',)},
}
METRICS = {
  'linear_eval': 'linear_top1',
  'finetune': 'finetune_top1',
  'knn': 'knn_top1',
  'few_label': 'few_label_top1',
  'transfer': 'digits_top1',
}


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
  monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:2])


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Working directory of a pre-training of two steps, and its averaged weights."""
  config = digits_vit.get_config()
  config.training.update(batch_size=32, epochs=1, warmup_epochs=0)
  config.loss.ssl_hsic.block_size = 1  # For eight devices.
  config.data.train_split = 'train[:64]'
  config.network.update(
    encoder_options=OPTIONS, head={'hidden_size': 16, 'output_size': 8}
  )
  workdir = tmp_path_factory.mktemp('run')
  runner.Runner(pretrain.Pretrain, config, workdir, 'train').run()
  return workdir, pretrained.read_run(str(workdir))


@pytest.mark.parametrize('name', CONFIGS)
def test_evaluations_are_of_its_weights(name, run, tmp_path):
  workdir, saved = run
  config = CONFIGS[name].get_config()
  config.init_from = str(workdir)
  config.network.update(encoder='vit_digits', encoder_options=OPTIONS)
  config.evaluation.batch_size = 64
  config.update_from_flattened_dict(CHANGES[name])
  if name in MEASURED:
    measurement.run(MEASURED[name], config, tmp_path)
  else:
    experiment = {'linear_eval': linear_eval.LinearEval, 'finetune': finetune.FineTune}
    runner.Runner(experiment[name], config, tmp_path, 'train_and_eval').run()
  results = json.loads((tmp_path / 'results.json').read_text())
  assert METRICS[name] in results
  expected = pretrained.fingerprint(saved.averaged, saved.network_state)
  assert results['encoder_fingerprint'] == expected


def test_linear_head_on_a_frozen_encoder_changes_nothing_of_it(tmp_path):
  config = shapes_vit.get_config()
  config.init_from = 'random'
  config.network.encoder_options = OPTIONS | {'patch_size': 8, 'image_size': 32}
  config.data.train.split, config.data.test.split = 'train[:16]', 'test[:5]'
  config.data.crop_size = 32
  config.training.update(steps=2, warmup_steps=0, batch_size=8, train_encoder=False)
  config.evaluation.batch_size = 8
  made = runner.Runner(segmentation.Segmentation, config, tmp_path, 'train_and_eval')
  before = jax.device_get(parallel.first(made._experiment.state.network.params))
  made.run()
  after = jax.device_get(parallel.first(made._experiment.state.network.params))
  for module, leaves in before.items():
    for name, value in leaves.items():
      is_kept = np.array_equal(after[module][name], value)
      assert is_kept == classifier.is_of_encoder(module), (module, name)
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['protocol']['mean_iou'].startswith(
    'batch norm and a linear layer on the last feature map; head on the frozen encoder'
  )
