"""SSL-HSIC on scikit-learn's digits: 1,437 real images, minutes on two CPU cores.

python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR
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
    'source': 'digits',
    'train_split': 'train',
    'crop_size': 0,  # Pixels; 0: whole images, the accelerator crops.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.3053,),
    'std': (0.3760,),
    'num_workers': 0,  # Processes; 0: a thread.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {
    'views': ({'policy': 'digits'}, {'policy': 'digits'}),
    'options': {},
  }
  config.network = {
    'encoder': 'resnet_digits',
    'encoder_options': {},
    'head': {'hidden_size': 256, 'output_size': 64},
  }
  config.target_network = True
  config.target_base_decay = 0.9
  config.target_decay_schedule = 'cosine'
  config.weight_ema_decay = 0.99
  config.loss = _loss()
  config.instruments = False  # Logs HSIC, InfoNCE and more of every batch, exactly.
  config.optimizer = _optimizer()
  config.training = {
    'batch_size': 128,  # Over all devices.
    'epochs': 80,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {
    'train_split': 'train',
    'test_split': 'test',
    'batch_size': 360,
    # What is compared at the end of the run; (): nothing.
    'representations': ('pixels', 'untrained', 'trained'),
    'labels_per_class': (1, 5, 10),  # Of the comparison.
  }
  config.evaluators = {
    # What is measured during training; lidar takes longer than these.
    'names': ('knn', 'online_classifier', 'collapse', 'rankme', 'alpha_req'),
    **evaluators.settings(),
  }
  config.evaluators.alpha_req.ranks = (1, 50)  # Of 64.
  config.evaluators.lidar.num_images = 100
  config.runner = _runner()
  return config


# Configurations import the library for the settings of losses and optimisers, which
# sslhsic/losses and sslhsic/optim/optimizers.py describe.


def _loss() -> dict[str, Any]:
  """SSL-HSIC, and the settings of every loss."""
  return {
    # At the published γ = 3, small networks without a target network collapse.
    **losses.settings('ssl_hsic', gamma=1.0),
    'optimizer': {  # Of the parameters of the loss, such as the kernel scale.
      'learning_rate': 3e-4,
      'weight_decay': 0.0,
      'decayed': ('*',),
      **optim.settings('adamw'),
    },
  }


def _optimizer() -> dict[str, Any]:
  """AdamW, and the settings of every optimiser."""
  return {
    'base_learning_rate': 8e-3,  # Times batch_size / 256.
    'weight_decay': 1e-4,
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('adamw'),
  }


def _runner() -> dict[str, Any]:
  """How often to log, evaluate and save, and what to warn of."""
  return {
    'log_every': 20,
    'evaluate_every': 200,
    'checkpoint_every': 200,
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
