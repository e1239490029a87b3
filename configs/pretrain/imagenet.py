"""SSL-HSIC on ImageNet: the published run (Li et al., NeurIPS 2021, and its code).

Expected: 74.8 linear top-1 (ResNet-50, 1000 epochs, with target network), the value of
the published code's README. The published run took 128 Cloud TPU cores.

python -m experiments.pretrain --config=configs/pretrain/imagenet.py --workdir=DIR
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from sslhsic import evaluators, losses, optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = 'random'  # Or a run, DIR/checkpoints/STEP, or a safetensors file.
  config.init_what = 'state'  # What is taken from it: all; or 'encoder'.
  config.data = {
    'source': 'tfds:imagenet2012',
    'train_split': 'train',
    'crop_size': 224,  # Pixels.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'centre',  # Or 'shorter_side', of whole images.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
    'num_workers': 16,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {
    'views': ({'policy': 'byol_view1'}, {'policy': 'byol_view2'}),
    'options': {},
  }
  config.network = {
    'encoder': 'resnet50',
    'encoder_options': {},
    'head': {'hidden_size': 4096, 'output_size': 256},
  }
  config.target_network = True
  config.target_base_decay = 0.99
  config.target_decay_schedule = 'cosine'
  config.weight_ema_decay = 0.999
  config.loss = _loss()
  config.instruments = False  # Logs HSIC, InfoNCE and more of every batch, exactly.
  config.optimizer = _optimizer()
  config.training = {
    'batch_size': 4096,  # Over all devices.
    'epochs': 1000,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {
    'train_split': 'train[:100000]',  # What kNN looks in.
    'test_split': 'validation',
    'batch_size': 4096,
    'representations': (),  # Compared at the end: 'pixels', 'untrained', 'trained'.
    'labels_per_class': (1, 5, 10),  # Of the comparison.
  }
  config.evaluators = {
    # What is measured during training; or more of sslhsic/evaluators.
    'names': ('knn', 'online_classifier', 'collapse'),
    **evaluators.settings(),
  }
  config.runner = _runner()
  return config


def _loss() -> dict[str, Any]:
  """SSL-HSIC, and the settings of every loss."""
  return {
    # Published: estimator 'features' with its defaults, 512 independent features, with
    # another draw on each of 128 devices. Pairs are used here: their gradient has a
    # fraction of the noise at a fraction of the work (docs/estimator.md).
    **losses.settings('ssl_hsic', gamma=3.0, estimator='pairs'),
    'optimizer': {  # Of the parameters of the loss, such as the kernel scale.
      'learning_rate': 3e-4,
      'weight_decay': 0.0,
      'decayed': ('*',),
      **optim.settings('adamw'),
    },
  }


def _optimizer() -> dict[str, Any]:
  """LARS, and the settings of every optimiser."""
  return {
    'base_learning_rate': 0.4,  # Times batch_size / 256.
    'weight_decay': 1e-6,
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('lars', momentum=0.9, trust_coefficient=1e-3),
  }


def _runner() -> dict[str, Any]:
  """How often to log, evaluate and save, and what to warn of."""
  return {
    'log_every': 100,
    'evaluate_every': 6256,  # 20 epochs.
    'checkpoint_every': 1564,  # 5 epochs.
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
    # Warns when one of these was smaller so often in a row.
    'collapse': {
      'minima': {'projection_std': 0.1, 'embedding_std': 0.03, 'effective_rank': 2.0},
      'patience': 3,
    },
  }
